// 1 / (1 + e^-a) of a binary32 number, rounded after each step.

module f32_sigmoid #(
    parameter int LATENCY = 36
) (
    input logic clk,
    input logic [31:0] a,
    output logic [31:0] y
);
  localparam int EXP = (LATENCY * 4) / 9;
  localparam int ADD = LATENCY / 9;
  logic [31:0] power, sum;
  f32_exp #(.LATENCY(EXP)) first (.clk, .a({~a[31], a[30:0]}), .y(power));
  f32_add #(.LATENCY(ADD)) second (.clk, .a(power), .b(32'h3f800000), .y(sum));
  f32_div #(.LATENCY(LATENCY - EXP - ADD)) third (.clk, .a(32'h3f800000), .b(sum), .y);
endmodule
