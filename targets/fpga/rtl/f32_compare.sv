// Whether a binary32 number compares to another as asked for: 0 is a = b, 1 is a >= b, 2 is a > b, 3 is a <= b, 4 is a < b.

module f32_compare #(
    parameter int LATENCY = 1,
    parameter int FUNCTION = 0
) (
    input logic clk,
    input logic [31:0] a,
    input logic [31:0] b,
    output logic y
);
  `include "order.svh"
  logic result;
  always_comb begin
    case (FUNCTION)
      0: result = is_equal(a, b);
      1: result = is_less(b, a) || is_equal(a, b);
      2: result = is_less(b, a);
      3: result = is_less(a, b) || is_equal(a, b);
      default: result = is_less(a, b);
    endcase
  end
  delay #(.WIDTH(1), .CYCLES(LATENCY)) held (.clk, .in(result), .out(y));
endmodule
