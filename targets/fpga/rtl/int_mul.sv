// The lower bits of the product of two signed integers.

module int_mul #(
    parameter int LATENCY = 3,
    parameter int A_WIDTH = 32,
    parameter int B_WIDTH = 32,
    parameter int WIDTH = 32
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
  logic signed [A_WIDTH+B_WIDTH-1:0] product;
  assign product = $signed(a1) * $signed(b1);
  // The product has at least as many bits as are asked for, or is extended by its sign.
  logic [WIDTH-1:0] kept;
  generate
    if (WIDTH > A_WIDTH + B_WIDTH) begin : extended
      assign kept = {{(WIDTH - A_WIDTH - B_WIDTH) {product[A_WIDTH+B_WIDTH-1]}}, product};
    end else begin : cropped
      assign kept = product[WIDTH-1:0];
    end
  endgenerate
  delay #(.WIDTH(WIDTH), .CYCLES(cut(LATENCY, CUTS, 1))) delay1 (.clk, .in(kept), .out(y));
endmodule
