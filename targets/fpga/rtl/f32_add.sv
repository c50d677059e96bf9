// a + b, or a - b, of binary32 numbers: rounded to nearest even, subnormals included.

module f32_add #(
    parameter int LATENCY = 5,
    parameter int SUBTRACT = 0
) (
    input logic clk,
    input logic [31:0] a,
    input logic [31:0] b,
    output logic [31:0] y
);
  `include "float.svh"
  `include "cuts.svh"
  localparam int CUTS = 5;

  // The operand of the greater magnitude, and the other.
  logic [31:0] other, greater0, lesser0, greater1, lesser1;
  assign other = {b[31] ^ (SUBTRACT != 0), b[30:0]};
  assign {greater0, lesser0} = a[30:0] >= other[30:0] ? {a, other} : {other, a};
  delay #(.WIDTH(64), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (.clk, .in({greater0, lesser0}), .out({greater1, lesser1}));

  // The lesser moved to where the greater is, and what comes out if the result is no number.
  logic [7:0] greater_exponent, lesser_exponent, distance;
  logic [27:0] greater_significand, lesser_significand, moved;
  logic sticky, subtracts, is_special, either_nan;
  logic [31:0] special;
  always_comb begin
    greater_exponent = greater1[30:23] == 0 ? 8'd1 : greater1[30:23];
    lesser_exponent = lesser1[30:23] == 0 ? 8'd1 : lesser1[30:23];
    greater_significand = {|greater1[30:23], greater1[22:0], 4'b0};
    lesser_significand = {|lesser1[30:23], lesser1[22:0], 4'b0};
    distance = greater_exponent - lesser_exponent;
    sticky = 1'b0;
    if (distance > 27) begin
      moved = {27'b0, |lesser_significand};
    end else begin
      sticky = |(lesser_significand & ~(28'hfffffff << distance[4:0]));
      moved = lesser_significand >> distance[4:0];
      moved[0] = moved[0] | sticky;
    end
    subtracts = greater1[31] != lesser1[31];
    either_nan = (&greater1[30:23] && |greater1[22:0]) || (&lesser1[30:23] && |lesser1[22:0]);
    is_special = &greater1[30:23];
    special = either_nan || (&lesser1[30:23] && subtracts) ? CANONICAL_NAN : greater1;
  end
  logic [27:0] greater2, moved2;
  logic [7:0] exponent2;
  logic subtracts2, sign2, is_special2;
  logic [31:0] special2;
  delay #(.WIDTH(99), .CYCLES(cut(LATENCY, CUTS, 1))) delay1 (
      .clk,
      .in({greater_significand, moved, greater_exponent, subtracts, greater1[31], is_special, special}),
      .out({greater2, moved2, exponent2, subtracts2, sign2, is_special2, special2})
  );

  // The sum.
  logic [28:0] sum2, sum3;
  logic [7:0] exponent3;
  logic subtracts3, sign3, is_special3;
  logic [31:0] special3;
  assign sum2 = subtracts2 ? {1'b0, greater2 - moved2} : {1'b0, greater2} + {1'b0, moved2};
  delay #(.WIDTH(72), .CYCLES(cut(LATENCY, CUTS, 2))) delay2 (
      .clk,
      .in({sum2, exponent2, subtracts2, sign2, is_special2, special2}),
      .out({sum3, exponent3, subtracts3, sign3, is_special3, special3})
  );

  // Its first one at the front.
  logic [27:0] kept, significand3, significand4;
  logic [4:0] zeros;
  logic signed [11:0] signed_exponent, exponent4;
  logic sign4, is_special4, is_zero, zero_sign;
  logic [31:0] chosen3, special4;
  always_comb begin
    kept = sum3[28] ? {sum3[28:2], sum3[1] | sum3[0]} : sum3[27:0];
    zeros = leading_zeros28(kept);
    significand3 = kept << zeros;
    signed_exponent = $signed({4'b0, exponent3}) + $signed({11'b0, sum3[28]}) - $signed({7'b0, zeros});
    is_zero = sum3 == 0;
    zero_sign = sign3 && !subtracts3;
    chosen3 = is_special3 ? special3 : {zero_sign, 31'b0};
  end
  delay #(.WIDTH(74), .CYCLES(cut(LATENCY, CUTS, 3))) delay3 (
      .clk,
      .in({significand3, signed_exponent, sign3, is_special3 || is_zero, chosen3}),
      .out({significand4, exponent4, sign4, is_special4, special4})
  );

  // Rounded.
  logic [31:0] result;
  assign result = is_special4 ? special4 : round32(sign4, exponent4, significand4);
  delay #(.WIDTH(32), .CYCLES(cut(LATENCY, CUTS, 4))) delay4 (.clk, .in(result), .out(y));
endmodule
