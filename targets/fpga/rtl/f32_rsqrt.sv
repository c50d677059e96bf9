// 1 / sqrt(a) of a binary32 number, rounded after each of both steps.

module f32_rsqrt #(
    parameter int LATENCY = 30
) (
    input logic clk,
    input logic [31:0] a,
    output logic [31:0] y
);
  logic [31:0] root;
  f32_sqrt #(.LATENCY(LATENCY / 2)) first (.clk, .a, .y(root));
  f32_div #(.LATENCY(LATENCY - LATENCY / 2)) second (.clk, .a(32'h3f800000), .b(root), .y);
endmodule
