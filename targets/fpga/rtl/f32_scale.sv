// a b of binary32 numbers where b is a power of two or the negative of one, and normal: rounded to nearest even, subnormals
// included. There is nothing to multiply: exponents are added.

module f32_scale #(
    parameter int LATENCY = 4
) (
    input logic clk,
    input logic [31:0] a,
    input logic [31:0] b,
    output logic [31:0] y
);
  `include "float.svh"
  `include "cuts.svh"
  localparam int CUTS = 2;

  // The first one of a at the front.
  logic [4:0] zeros;
  logic [27:0] own, significand0, significand1;
  logic signed [11:0] exponent0, exponent1;
  logic sign0, sign1, is_special0, is_special1;
  logic [31:0] special0, special1;
  always_comb begin
    own = {|a[30:23], a[22:0], 4'b0};
    zeros = leading_zeros28(own);
    significand0 = own << zeros;
    exponent0 = $signed({4'b0, a[30:23]}) + $signed({11'b0, !(|a[30:23])}) - $signed({7'b0, zeros})
      + $signed({4'b0, b[30:23]}) - 12'sd127;
    sign0 = a[31] ^ b[31];
    is_special0 = &a[30:23] || !(|a[30:0]);
    special0 = &a[30:23] && |a[22:0] ? CANONICAL_NAN : {sign0, a[30:0]};
  end
  delay #(.WIDTH(74), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (
      .clk,
      .in({significand0, exponent0, sign0, is_special0, special0}),
      .out({significand1, exponent1, sign1, is_special1, special1})
  );

  // Rounded.
  logic [31:0] result;
  assign result = is_special1 ? special1 : round32(sign1, exponent1, significand1);
  delay #(.WIDTH(32), .CYCLES(cut(LATENCY, CUTS, 1))) delay1 (.clk, .in(result), .out(y));
endmodule
