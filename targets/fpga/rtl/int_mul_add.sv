// The lower bits of a b + c of integers, each of which is signed or not.

module int_mul_add #(
    parameter int LATENCY = 3,
    parameter int A_WIDTH = 8,
    parameter int B_WIDTH = 8,
    parameter int C_WIDTH = 32,
    parameter int WIDTH = 32,
    parameter int A_SIGNED = 1,
    parameter int B_SIGNED = 1,
    parameter int C_SIGNED = 1
) (
    input logic clk,
    input logic [A_WIDTH-1:0] a,
    input logic [B_WIDTH-1:0] b,
    input logic [C_WIDTH-1:0] c,
    output logic [WIDTH-1:0] y
);
  `include "cuts.svh"
  localparam int CUTS = 3;
  localparam int BEFORE = cut(LATENCY, CUTS, 0) + cut(LATENCY, CUTS, 1);
  logic [WIDTH-1:0] product, c1, sum;
  int_mul #(
      .LATENCY(BEFORE), .A_WIDTH(A_WIDTH), .B_WIDTH(B_WIDTH), .WIDTH(WIDTH), .A_SIGNED(A_SIGNED), .B_SIGNED(B_SIGNED)
  ) multiplier (.clk, .a, .b, .y(product));
  logic [WIDTH+C_WIDTH-1:0] wide;
  assign wide = {{WIDTH{C_SIGNED != 0 && c[C_WIDTH-1]}}, c};
  delay #(.WIDTH(WIDTH), .CYCLES(BEFORE)) held (.clk, .in(wide[WIDTH-1:0]), .out(c1));
  assign sum = product + c1;
  delay #(.WIDTH(WIDTH), .CYCLES(cut(LATENCY, CUTS, 2))) last (.clk, .in(sum), .out(y));
endmodule
