// The lower bits of the product of two integers, each of which is signed or not.

module int_mul #(
    parameter int LATENCY = 3,
    parameter int A_WIDTH = 32,
    parameter int B_WIDTH = 32,
    parameter int WIDTH = 32,
    parameter int A_SIGNED = 1,
    parameter int B_SIGNED = 1
) (
    input logic clk,
    input logic [A_WIDTH-1:0] a,
    input logic [B_WIDTH-1:0] b,
    output logic [WIDTH-1:0] y
);
  `include "cuts.svh"
  localparam int CUTS = 2;
  logic [A_WIDTH-1:0] a1;
  logic [B_WIDTH-1:0] b1;
  delay #(.WIDTH(A_WIDTH + B_WIDTH), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (.clk, .in({a, b}), .out({a1, b1}));
  logic signed [A_WIDTH:0] a_wide;
  logic signed [B_WIDTH:0] b_wide;
  logic signed [A_WIDTH+B_WIDTH+1:0] product;
  assign a_wide = {A_SIGNED != 0 && a1[A_WIDTH-1], a1};
  assign b_wide = {B_SIGNED != 0 && b1[B_WIDTH-1], b1};
  assign product = a_wide * b_wide;
  // The product has at least as many bits as are asked for, or is extended by its sign.
  logic [WIDTH-1:0] kept;
  generate
    if (WIDTH > A_WIDTH + B_WIDTH + 2) begin : extended
      assign kept = {{(WIDTH - A_WIDTH - B_WIDTH - 2) {product[A_WIDTH+B_WIDTH+1]}}, product};
    end else begin : cropped
      assign kept = product[WIDTH-1:0];
    end
  endgenerate
  delay #(.WIDTH(WIDTH), .CYCLES(cut(LATENCY, CUTS, 1))) delay1 (.clk, .in(kept), .out(y));
endmodule
