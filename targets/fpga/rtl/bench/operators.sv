// All operators side by side, with several latencies, all of which give their results 40 cycles after their operands.

module operators (
    input logic clk,
    input logic [31:0] a,
    input logic [31:0] b,
    input logic [31:0] c,
    output logic [31:0] sum,
    output logic [31:0] difference,
    output logic [31:0] product,
    output logic [31:0] fused,
    output logic [31:0] ratio,
    output logic [31:0] root,
    output logic [31:0] power,
    output logic [4:0] compared,
    output logic [31:0] greater,
    output logic [31:0] lesser,
    output logic [31:0] greater_folded,
    output logic [31:0] lesser_folded,
    output logic [31:0] of_signed,
    output logic [31:0] of_unsigned,
    output logic [31:0] to_signed,
    output logic [31:0] to_unsigned,
    output logic [7:0] to_i8,
    output logic [7:0] to_u8,
    output logic [31:0] nearest,
    output logic [31:0] below,
    output logic [31:0] above,
    output logic [31:0] whole_product,
    output logic [31:0] mixed_product,
    output logic [31:0] quotient,
    output logic [31:0] rest,
    output logic [31:0] modulo,
    output logic [31:0] reciprocal_root,
    output logic [31:0] scaled,
    output logic [31:0] scaled_down,
    output logic [15:0] half,
    output logic [15:0] brain,
    output logic [31:0] widened
);
  `include "narrow.svh"
  localparam int ALL = 40;

  // A result of a latency, held until it is 40 cycles old.
  `define HELD(BITS, CYCLES_BEFORE, NAME) \
    logic [BITS-1:0] NAME``_early; \
    delay #(.WIDTH(BITS), .CYCLES(ALL - CYCLES_BEFORE)) NAME``_held (.clk, .in(NAME``_early), .out(NAME));

  `HELD(32, 6, sum)
  f32_add #(.LATENCY(6)) u_sum (.clk, .a, .b, .y(sum_early));
  `HELD(32, 2, difference)
  f32_add #(.LATENCY(2), .SUBTRACT(1)) u_difference (.clk, .a, .b, .y(difference_early));
  `HELD(32, 4, product)
  f32_mul #(.LATENCY(4)) u_product (.clk, .a, .b, .y(product_early));
  `HELD(32, 10, fused)
  f32_fma #(.LATENCY(10)) u_fused (.clk, .a, .b, .c, .y(fused_early));
  `HELD(32, 15, ratio)
  f32_div #(.LATENCY(15)) u_ratio (.clk, .a, .b, .y(ratio_early));
  `HELD(32, 14, root)
  f32_sqrt #(.LATENCY(14)) u_root (.clk, .a, .y(root_early));
  `HELD(32, 12, power)
  f32_exp #(.LATENCY(12)) u_power (.clk, .a, .y(power_early));
  generate
    for (genvar function_number = 0; function_number < 5; function_number++) begin : comparisons
      f32_compare #(.LATENCY(ALL), .FUNCTION(function_number)) u (.clk, .a, .b, .y(compared[function_number]));
    end
  endgenerate
  `HELD(32, 1, greater)
  f32_extreme #(.LATENCY(1)) u_greater (.clk, .a, .b, .least(1'b0), .folds(1'b0), .y(greater_early));
  `HELD(32, 0, lesser)
  f32_extreme #(.LATENCY(0)) u_lesser (.clk, .a, .b, .least(1'b1), .folds(1'b0), .y(lesser_early));
  `HELD(32, 1, greater_folded)
  f32_extreme #(.LATENCY(1)) u_greater_folded (.clk, .a, .b, .least(1'b0), .folds(1'b1), .y(greater_folded_early));
  `HELD(32, 2, lesser_folded)
  f32_extreme #(.LATENCY(2)) u_lesser_folded (.clk, .a, .b, .least(1'b1), .folds(1'b1), .y(lesser_folded_early));
  `HELD(32, 4, of_signed)
  f32_of_int #(.LATENCY(4)) u_of_signed (.clk, .a, .y(of_signed_early));
  `HELD(32, 1, of_unsigned)
  f32_of_int #(.LATENCY(1), .SIGNED(0)) u_of_unsigned (.clk, .a, .y(of_unsigned_early));
  `HELD(32, 4, to_signed)
  int_of_f32 #(.LATENCY(4)) u_to_signed (.clk, .a, .y(to_signed_early));
  `HELD(32, 1, to_unsigned)
  int_of_f32 #(.LATENCY(1), .SIGNED(0)) u_to_unsigned (.clk, .a, .y(to_unsigned_early));
  `HELD(8, 2, to_i8)
  int_of_f32 #(.LATENCY(2), .WIDTH(8)) u_to_i8 (.clk, .a, .y(to_i8_early));
  `HELD(8, 3, to_u8)
  int_of_f32 #(.LATENCY(3), .WIDTH(8), .SIGNED(0)) u_to_u8 (.clk, .a, .y(to_u8_early));
  `HELD(32, 2, nearest)
  f32_integral #(.LATENCY(2), .FUNCTION(0)) u_nearest (.clk, .a, .y(nearest_early));
  `HELD(32, 1, below)
  f32_integral #(.LATENCY(1), .FUNCTION(1)) u_below (.clk, .a, .y(below_early));
  `HELD(32, 0, above)
  f32_integral #(.LATENCY(0), .FUNCTION(2)) u_above (.clk, .a, .y(above_early));
  `HELD(32, 5, whole_product)
  int_mul #(.LATENCY(5)) u_whole_product (.clk, .a, .b, .y(whole_product_early));
  // a without a sign, b with one.
  `HELD(32, 4, mixed_product)
  int_mul #(.LATENCY(4), .A_WIDTH(9), .B_WIDTH(16)) u_mixed_product (
      .clk, .a({1'b0, a[7:0]}), .b(b[15:0]), .y(mixed_product_early));
  `HELD(32, 36, quotient)
  int_div #(.LATENCY(36)) u_quotient (.clk, .a, .b, .y(quotient_early));
  `HELD(32, 20, rest)
  int_div #(.LATENCY(20), .REMAINDER(1)) u_rest (.clk, .a, .b, .y(rest_early));
  `HELD(32, 36, modulo)
  int_div #(.LATENCY(36), .REMAINDER(1), .FLOORS(1)) u_modulo (.clk, .a, .b, .y(modulo_early));
  `HELD(32, 30, reciprocal_root)
  f32_rsqrt #(.LATENCY(30)) u_reciprocal_root (.clk, .a, .y(reciprocal_root_early));
  // By a power of two with the exponent and the sign of b, which is normal, and by one that is known.
  logic [31:0] power_of_two;
  assign power_of_two = {b[31], b[30:23] == 0 ? 8'd1 : &b[30:23] ? 8'd254 : b[30:23], 23'b0};
  `HELD(32, 4, scaled)
  f32_scale #(.LATENCY(4)) u_scaled (.clk, .a, .b(power_of_two), .y(scaled_early));
  `HELD(32, 1, scaled_down)
  f32_scale #(.LATENCY(1)) u_scaled_down (.clk, .a, .b(32'h3e800000), .y(scaled_down_early));
  `HELD(16, 0, half)
  assign half_early = rounded_f16(a);
  `HELD(16, 0, brain)
  assign brain_early = rounded_bf16(a);
  `HELD(32, 0, widened)
  assign widened_early = widened_f16(a[15:0]);
endmodule
