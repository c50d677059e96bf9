// A binary32 number as an integer: towards zero, to the least or the greatest where it is too small or too large, and 0 where it
// is no number.

module int_of_f32 #(
    parameter int LATENCY = 3,
    parameter int WIDTH = 32,
    parameter int SIGNED = 1
) (
    input logic clk,
    input logic [31:0] a,
    output logic [WIDTH-1:0] y
);
  `include "cuts.svh"
  localparam int CUTS = 2;
  localparam logic [WIDTH-1:0] GREATEST = SIGNED != 0 ? {1'b0, {(WIDTH - 1) {1'b1}}} : {WIDTH{1'b1}};
  localparam logic [WIDTH-1:0] LEAST = SIGNED != 0 ? {1'b1, {(WIDTH - 1) {1'b0}}} : {WIDTH{1'b0}};

  // The magnitude in 64 bits, the last of which is 1.
  logic [8:0] up;
  logic [87:0] moved;
  logic is_nan, is_large0, is_large1, sign1, is_zero0, is_zero1;
  logic [63:0] magnitude1;
  always_comb begin
    is_nan = &a[30:23] && |a[22:0];
    up = {1'b0, a[30:23]} - 9'd126;
    is_zero0 = is_nan || a[30:23] < 8'd127;
    is_large0 = !is_nan && a[30:23] >= 8'd127 + 8'd63;
    moved = {64'b0, |a[30:23], a[22:0]} << up[5:0];
  end
  delay #(.WIDTH(67), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (
      .clk,
      .in({a[31], is_zero0, is_large0, moved[87:24]}),
      .out({sign1, is_zero1, is_large1, magnitude1})
  );

  logic [WIDTH-1:0] result;
  always_comb begin
    if (is_zero1) result = '0;
    else if (sign1) begin
      if (SIGNED == 0) result = '0;
      else result = is_large1 || magnitude1 > {{(64 - WIDTH) {1'b0}}, LEAST} ? LEAST : -magnitude1[WIDTH-1:0];
    end else result = is_large1 || magnitude1 > {{(64 - WIDTH) {1'b0}}, GREATEST} ? GREATEST : magnitude1[WIDTH-1:0];
  end
  delay #(.WIDTH(WIDTH), .CYCLES(cut(LATENCY, CUTS, 1))) delay1 (.clk, .in(result), .out(y));
endmodule
