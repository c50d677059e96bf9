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
  // Both signs, the divisor, and what is left with the digits so far behind it.
  localparam int STATE = 2 + 3 * WIDTH;
  logic [STATE-1:0] first;
  assign first[2*WIDTH-1:WIDTH] = '0;
  delay #(.WIDTH(2 * WIDTH + 2), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (
      .clk,
      .in({a[WIDTH-1], b[WIDTH-1], b_magnitude, a_magnitude}),
      .out({first[STATE-1:2*WIDTH], first[WIDTH-1:0]})
  );
  generate
    for (genvar digit = 0; digit < WIDTH; digit++) begin : steps
      logic [STATE-1:0] state, next;
      if (digit == 0) begin : begins
        assign state = first;
      end else begin : goes_on
        assign state = steps[digit-1].next;
      end
      logic [1:0] signs;
      logic [WIDTH-1:0] divisor, left;
      logic [2*WIDTH-1:0] rest;
      logic [WIDTH+1:0] less;
      assign {signs, divisor, rest} = state;
      assign less = {1'b0, rest[2*WIDTH-1:WIDTH-1]} - {2'b0, divisor};
      assign left = less[WIDTH+1] ? rest[2*WIDTH-2:WIDTH-1] : less[WIDTH-1:0];
      delay #(.WIDTH(STATE), .CYCLES(cut(LATENCY, CUTS, digit + 1))) held (
          .clk, .in({signs, divisor, left, rest[WIDTH-2:0], !less[WIDTH+1]}), .out(next));
    end
  endgenerate
  logic [WIDTH-1:0] quotient, remainder, own, signed_divisor, result;
  logic [WIDTH-1:0] divisor;
  logic [1:0] signs;
  assign {signs, divisor, remainder, quotient} = steps[WIDTH-1].next;
  always_comb begin
    signed_divisor = signs[0] ? -divisor : divisor;
    own = signs[1] ? -remainder : remainder;
    if (REMAINDER == 0) result = signs[1] != signs[0] ? -quotient : quotient;
    else if (FLOORS != 0 && own != 0 && signs[1] != signs[0]) result = own + signed_divisor;
    else result = own;
  end
  delay #(.WIDTH(WIDTH), .CYCLES(cut(LATENCY, CUTS, WIDTH + 1))) delay1 (.clk, .in(result), .out(y));
endmodule
