// a b of binary32 numbers: rounded to nearest even, subnormals included. The product of the significands is one multiplication of
// 24 by 24 bits, which two DSP slices of 27 by 18 do.

module f32_mul #(
    parameter int LATENCY = 4
) (
    input logic clk,
    input logic [31:0] a,
    input logic [31:0] b,
    output logic [31:0] y
);
  `include "float.svh"
  `include "cuts.svh"
  `include "normal48.svh"
  localparam int CUTS = 5;

  logic [31:0] a1, b1;
  delay #(.WIDTH(64), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (.clk, .in({a, b}), .out({a1, b1}));

  // The product, exactly.
  logic [47:0] product1, product2;
  logic signed [11:0] exponent1, exponent2;
  logic sign1, sign2, is_special1, is_special2;
  logic a_nan, b_nan, a_inf, b_inf, a_zero, b_zero;
  logic [31:0] special1, special2;
  assign product1 = {24'b0, |a1[30:23], a1[22:0]} * {24'b0, |b1[30:23], b1[22:0]};
  always_comb begin
    sign1 = a1[31] ^ b1[31];
    a_nan = &a1[30:23] && |a1[22:0];
    b_nan = &b1[30:23] && |b1[22:0];
    a_inf = &a1[30:23] && !(|a1[22:0]);
    b_inf = &b1[30:23] && !(|b1[22:0]);
    a_zero = !(|a1[30:0]);
    b_zero = !(|b1[30:0]);
    exponent1 = $signed({4'b0, a1[30:23]}) + $signed({4'b0, b1[30:23]})
      + $signed({11'b0, !(|a1[30:23])}) + $signed({11'b0, !(|b1[30:23])}) - 12'sd126;
    is_special1 = a_nan || b_nan || a_inf || b_inf || a_zero || b_zero;
    if (a_nan || b_nan || (a_inf && b_zero) || (b_inf && a_zero)) special1 = CANONICAL_NAN;
    else if (a_inf || b_inf) special1 = {sign1, 8'hff, 23'b0};
    else special1 = {sign1, 31'b0};
  end
  delay #(.WIDTH(48), .CYCLES(cut(LATENCY, CUTS, 1))) delay1 (.clk, .in(product1), .out(product2));
  delay #(.WIDTH(46), .CYCLES(cut(LATENCY, CUTS, 1))) delay1b (
      .clk,
      .in({exponent1, sign1, is_special1, special1}),
      .out({exponent2, sign2, is_special2, special2})
  );

  // What adds up the products of parts has a cycle of its own.
  logic [47:0] product3;
  logic signed [11:0] exponent3;
  logic sign3, is_special3;
  logic [31:0] special3;
  delay #(.WIDTH(94), .CYCLES(cut(LATENCY, CUTS, 2))) delay2 (
      .clk,
      .in({product2, exponent2, sign2, is_special2, special2}),
      .out({product3, exponent3, sign3, is_special3, special3})
  );

  // Its first one at the front.
  logic [5:0] zeros;
  logic [47:0] normal;
  logic [27:0] significand4;
  logic signed [11:0] exponent4;
  logic sign4, is_special4;
  logic [31:0] special4;
  assign zeros = leading_zeros48(product3);
  assign normal = product3 << zeros;
  delay #(.WIDTH(74), .CYCLES(cut(LATENCY, CUTS, 3))) delay3 (
      .clk,
      .in({normal[47:21], |normal[20:0], exponent3 - $signed({6'b0, zeros}), sign3, is_special3, special3}),
      .out({significand4, exponent4, sign4, is_special4, special4})
  );

  // Rounded.
  logic [31:0] result;
  assign result = is_special4 ? special4 : round32(sign4, exponent4, significand4);
  delay #(.WIDTH(32), .CYCLES(cut(LATENCY, CUTS, 4))) delay4 (.clk, .in(result), .out(y));
endmodule
