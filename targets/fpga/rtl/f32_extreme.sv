// The greater of two binary32 numbers, or the lesser if least. If a is no number it is a; of equals it is a, or b if folds.

module f32_extreme #(
    parameter int LATENCY = 1
) (
    input logic clk,
    input logic [31:0] a,
    input logic [31:0] b,
    input logic least,
    input logic folds,
    output logic [31:0] y
);
  `include "order.svh"
  logic takes;
  assign takes = is_nan(a) || (least ? is_less(a, b) : is_less(b, a)) || (!folds && is_equal(a, b));
  delay #(.WIDTH(32), .CYCLES(LATENCY)) held (.clk, .in(takes ? a : b), .out(y));
endmodule
