// The greater of two binary32 numbers, or the lesser. If a is no number it is a; of equals it is a, or b if FOLDS.

module f32_extreme #(
    parameter int LATENCY = 1,
    parameter int LEAST = 0,
    parameter int FOLDS = 0
) (
    input logic clk,
    input logic [31:0] a,
    input logic [31:0] b,
    output logic [31:0] y
);
  `include "order.svh"
  logic takes;
  assign takes = is_nan(a) || (LEAST != 0 ? is_less(a, b) : is_less(b, a)) || (FOLDS == 0 && is_equal(a, b));
  delay #(.WIDTH(32), .CYCLES(LATENCY)) held (.clk, .in(takes ? a : b), .out(y));
endmodule
