// A binary32 number made integral: 0 is to nearest, ties to even, 1 is down, 2 is up.

module f32_integral #(
    parameter int LATENCY = 2,
    parameter int FUNCTION = 0
) (
    input logic clk,
    input logic [31:0] a,
    output logic [31:0] y
);
  `include "float.svh"
  `include "cuts.svh"
  localparam int CUTS = 2;

  // Which bits are behind the binary point.
  logic [31:0] a1, mask0, mask1;
  logic [7:0] exponent;
  logic [4:0] kept;
  always_comb begin
    exponent = a[30:23];
    kept = 5'(exponent - 8'd127);
    mask0 = exponent >= 8'd150 ? 32'b0 : 32'h007fffff >> kept;
  end
  delay #(.WIDTH(64), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (.clk, .in({a, mask0}), .out({a1, mask1}));

  // Of numbers below 1 nothing is kept but the sign, or 1 comes out.
  logic [31:0] result, least, behind, half;
  logic grows, is_small;
  always_comb begin
    is_small = a1[30:23] < 8'd127;
    least = mask1 + 32'd1;
    half = least >> 1;
    behind = a1 & mask1;
    case (FUNCTION)
      0: grows = is_small ? a1[30:0] > 31'h3f000000 : (behind > half || (behind == half && |(a1 & least)));
      1: grows = a1[31] && (is_small ? |a1[30:0] : |behind);
      default: grows = !a1[31] && (is_small ? |a1[30:0] : |behind);
    endcase
    // The last bit of 1 to below 2 is that of the exponent, which is odd there.
    if (&a1[30:23]) result = |a1[22:0] ? CANONICAL_NAN : a1;
    else if (is_small) result = grows ? {a1[31], 31'h3f800000} : {a1[31], 31'b0};
    else if (mask1 == 0) result = a1;
    else result = (a1 & ~mask1) + (grows ? least : 32'b0);
  end
  delay #(.WIDTH(32), .CYCLES(cut(LATENCY, CUTS, 1))) delay1 (.clk, .in(result), .out(y));
endmodule
