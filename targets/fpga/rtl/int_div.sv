// The quotient of two signed integers towards zero, or what it leaves, with the sign of a or (FLOORS) that of b. A divisor of 0
// gives anything.

module int_div #(
    parameter int LATENCY = 36,
    parameter int WIDTH = 32,
    parameter int REMAINDER = 0,
    parameter int FLOORS = 0
) (
    input logic clk,
    input logic [WIDTH-1:0] a,
    input logic [WIDTH-1:0] b,
    output logic [WIDTH-1:0] y
);
  `include "cuts.svh"
  localparam int CUTS = WIDTH + 2;
  logic [WIDTH-1:0] a_magnitude, b_magnitude;
  assign a_magnitude = a[WIDTH-1] ? -a : a;
  assign b_magnitude = b[WIDTH-1] ? -b : b;
  logic [1:0] signs[WIDTH+1];
  logic [WIDTH-1:0] divisor[WIDTH+1];
  logic [2*WIDTH-1:0] rest[WIDTH+1];
  delay #(.WIDTH(2 * WIDTH + 2), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (
      .clk,
      .in({a[WIDTH-1], b[WIDTH-1], b_magnitude, a_magnitude}),
      .out({signs[0], divisor[0], rest[0][WIDTH-1:0]})
  );
  assign rest[0][2*WIDTH-1:WIDTH] = '0;
  generate
    for (genvar digit = 0; digit < WIDTH; digit++) begin : steps
      logic [WIDTH+1:0] less;
      logic [WIDTH-1:0] left;
      assign less = {1'b0, rest[digit][2*WIDTH-1:WIDTH-1]} - {2'b0, divisor[digit]};
      assign left = less[WIDTH+1] ? rest[digit][2*WIDTH-2:WIDTH-1] : less[WIDTH-1:0];
      delay #(.WIDTH(3 * WIDTH + 2), .CYCLES(cut(LATENCY, CUTS, digit + 1))) held (
          .clk,
          .in({signs[digit], divisor[digit], left, rest[digit][WIDTH-2:0], !less[WIDTH+1]}),
          .out({signs[digit+1], divisor[digit+1], rest[digit+1]})
      );
    end
  endgenerate
  logic [WIDTH-1:0] quotient, remainder, own, signed_divisor, result;
  always_comb begin
    {remainder, quotient} = rest[WIDTH];
    signed_divisor = signs[WIDTH][0] ? -divisor[WIDTH] : divisor[WIDTH];
    own = signs[WIDTH][1] ? -remainder : remainder;
    if (REMAINDER == 0) result = signs[WIDTH][1] != signs[WIDTH][0] ? -quotient : quotient;
    else if (FLOORS != 0 && own != 0 && signs[WIDTH][1] != signs[WIDTH][0]) result = own + signed_divisor;
    else result = own;
  end
  delay #(.WIDTH(WIDTH), .CYCLES(cut(LATENCY, CUTS, WIDTH + 1))) delay1 (.clk, .in(result), .out(y));
endmodule
