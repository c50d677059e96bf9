// a / b of binary32 numbers: rounded to nearest even, subnormals included. One digit of the quotient after the other.

module f32_div #(
    parameter int LATENCY = 15
) (
    input logic clk,
    input logic [31:0] a,
    input logic [31:0] b,
    output logic [31:0] y
);
  `include "float.svh"
  `include "cuts.svh"
  // A digit before the binary point and 26 behind it: 24, one to round by and one that the first may be wanting.
  localparam int DIGITS = 27;
  localparam int CUTS = DIGITS + 3;

  // Significands with their first one at the front.
  logic [4:0] a_zeros, b_zeros;
  logic [23:0] a_significand, b_significand;
  logic signed [11:0] exponent0;
  logic sign0, is_special0, a_nan, b_nan, a_inf, b_inf, a_zero, b_zero;
  logic [31:0] special0;
  always_comb begin
    a_zeros = leading_zeros28({|a[30:23], a[22:0], 4'b0});
    b_zeros = leading_zeros28({|b[30:23], b[22:0], 4'b0});
    a_significand = {|a[30:23], a[22:0]} << a_zeros;
    b_significand = {|b[30:23], b[22:0]} << b_zeros;
    exponent0 = $signed({4'b0, a[30:23]}) + $signed({11'b0, !(|a[30:23])}) - $signed({7'b0, a_zeros})
      - $signed({4'b0, b[30:23]}) - $signed({11'b0, !(|b[30:23])}) + $signed({7'b0, b_zeros}) + 12'sd127;
    sign0 = a[31] ^ b[31];
    a_nan = &a[30:23] && |a[22:0];
    b_nan = &b[30:23] && |b[22:0];
    a_inf = &a[30:23] && !(|a[22:0]);
    b_inf = &b[30:23] && !(|b[22:0]);
    a_zero = !(|a[30:0]);
    b_zero = !(|b[30:0]);
    is_special0 = a_nan || b_nan || a_inf || b_inf || a_zero || b_zero;
    if (a_nan || b_nan || (a_inf && b_inf) || (a_zero && b_zero)) special0 = CANONICAL_NAN;
    else if (a_inf || b_zero) special0 = {sign0, 8'hff, 23'b0};
    else special0 = {sign0, 31'b0};
  end

  // What is known beside the digits, the divisor, what is left, which is below twice the divisor, and the digits so far.
  localparam int STATE = 46 + 24 + 25 + DIGITS;
  logic [STATE-1:0] first;
  assign first[DIGITS-1:0] = '0;
  delay #(.WIDTH(95), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (
      .clk,
      .in({exponent0, sign0, is_special0, special0, b_significand, 1'b0, a_significand}),
      .out(first[STATE-1:DIGITS])
  );
  generate
    for (genvar digit = 0; digit < DIGITS; digit++) begin : steps
      logic [STATE-1:0] state, next;
      if (digit == 0) begin : begins
        assign state = first;
      end else begin : goes_on
        assign state = steps[digit-1].next;
      end
      logic [45:0] beside;
      logic [23:0] divisor;
      logic [24:0] rest, left;
      logic [DIGITS-1:0] quotient;
      logic [25:0] less;
      assign {beside, divisor, rest, quotient} = state;
      assign less = {1'b0, rest} - {2'b0, divisor};
      assign left = less[25] ? rest : less[24:0];
      delay #(.WIDTH(STATE), .CYCLES(cut(LATENCY, CUTS, digit + 1))) held (
          .clk, .in({beside, divisor, left[23:0], 1'b0, quotient[DIGITS-2:0], !less[25]}), .out(next));
    end
  endgenerate

  // The first one at the front.
  logic signed [11:0] exponent1, exponent2;
  logic sign1, sign2, is_special1, is_special2, sticky;
  logic [31:0] special1, special2;
  logic [27:0] significand1, significand2;
  logic [DIGITS-1:0] digits;
  logic [23:0] divisor;
  logic [24:0] rest;
  assign {exponent1, sign1, is_special1, special1, divisor, rest, digits} = steps[DIGITS-1].next;
  always_comb begin
    sticky = |rest;
    significand1 = digits[DIGITS-1] ? {digits, sticky} : {digits[DIGITS-2:0], sticky, 1'b0};
  end
  delay #(.WIDTH(74), .CYCLES(cut(LATENCY, CUTS, DIGITS + 1))) delay1 (
      .clk,
      .in({significand1, digits[DIGITS-1] ? exponent1 : exponent1 - 12'sd1, sign1, is_special1, special1}),
      .out({significand2, exponent2, sign2, is_special2, special2})
  );

  // Rounded.
  logic [31:0] result;
  assign result = is_special2 ? special2 : round32(sign2, exponent2, significand2);
  delay #(.WIDTH(32), .CYCLES(cut(LATENCY, CUTS, DIGITS + 2))) delay2 (.clk, .in(result), .out(y));
endmodule
