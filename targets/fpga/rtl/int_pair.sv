// Two products of signed integers of at most 8 bits that share a factor, from one multiplication of 27 by 8 bits: the lower product
// borrows from the upper where it is negative (WP486).

module int_pair #(
    parameter int LATENCY = 3
) (
    input logic clk,
    input logic [7:0] a,
    input logic [7:0] b,
    input logic [7:0] c,
    output logic [31:0] y
);
  `include "cuts.svh"
  localparam int CUTS = 3;
  logic [7:0] a1, b1, c1;
  delay #(.WIDTH(24), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (.clk, .in({a, b, c}), .out({a1, b1, c1}));
  logic signed [26:0] both;
  logic signed [34:0] product1;
  logic [33:0] product2;
  assign both = $signed({a1[7], a1, 18'b0}) + $signed({{19{b1[7]}}, b1});
  assign product1 = both * $signed(c1);
  delay #(.WIDTH(34), .CYCLES(cut(LATENCY, CUTS, 1))) delay1 (.clk, .in(product1[33:0]), .out(product2));
  // a c in the upper half, b c in the lower.
  logic [31:0] result;
  assign result = {product2[33:18] + {15'b0, product2[17]}, product2[15:0]};
  delay #(.WIDTH(32), .CYCLES(cut(LATENCY, CUTS, 2))) delay2 (.clk, .in(result), .out(y));
endmodule
