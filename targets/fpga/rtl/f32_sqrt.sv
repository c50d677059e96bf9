// The square root of a binary32 number: rounded to nearest even, subnormals included. One digit of the root after the other.

module f32_sqrt #(
    parameter int LATENCY = 15
) (
    input logic clk,
    input logic [31:0] a,
    output logic [31:0] y
);
  `include "float.svh"
  `include "cuts.svh"
  // 24 digits, and one to round by.
  localparam int DIGITS = 25;
  localparam int CUTS = DIGITS + 2;

  // The significand as a number from 1 to below 4 times an even power of two.
  logic [4:0] zeros;
  logic [23:0] significand;
  logic signed [11:0] own_exponent, half;
  logic is_odd, is_special0;
  logic [7:0] exponent0;
  logic [24:0] radicand0;
  logic [31:0] special0;
  always_comb begin
    zeros = leading_zeros28({|a[30:23], a[22:0], 4'b0});
    significand = {|a[30:23], a[22:0]} << zeros;
    own_exponent = $signed({4'b0, a[30:23]}) + $signed({11'b0, !(|a[30:23])}) - $signed({7'b0, zeros}) - 12'sd127;
    is_odd = own_exponent[0];
    half = (own_exponent - $signed({11'b0, is_odd})) >>> 1;
    exponent0 = 8'(half + 12'sd127);
    radicand0 = is_odd ? {significand, 1'b0} : {1'b0, significand};
    is_special0 = &a[30:23] || a[31] || !(|a[30:0]);
    if (!(|a[30:0])) special0 = a;
    else if ((&a[30:23] && |a[22:0]) || a[31]) special0 = CANONICAL_NAN;
    else special0 = a;
  end

  // What is known beside the digits, what of the radicand was not brought down yet, what is left, and the root so far.
  localparam int STATE = 41 + 26 + (DIGITS + 2) + DIGITS;
  logic [STATE-1:0] first;
  assign first[2*DIGITS+1:0] = '0;
  delay #(.WIDTH(67), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (
      .clk, .in({exponent0, is_special0, special0, radicand0, 1'b0}), .out(first[STATE-1:2*DIGITS+2]));
  generate
    for (genvar digit = 0; digit < DIGITS; digit++) begin : steps
      logic [STATE-1:0] state, next;
      if (digit == 0) begin : begins
        assign state = first;
      end else begin : goes_on
        assign state = steps[digit-1].next;
      end
      logic [40:0] beside;
      logic [25:0] radicand;
      logic [DIGITS+1:0] rest;
      logic [DIGITS-1:0] root;
      logic [DIGITS+3:0] brought, less, left;
      assign {beside, radicand, rest, root} = state;
      assign brought = {rest, radicand[25:24]};
      assign less = brought - {2'b0, root, 2'b01};
      assign left = less[DIGITS+3] ? brought : less;
      delay #(.WIDTH(STATE), .CYCLES(cut(LATENCY, CUTS, digit + 1))) held (
          .clk,
          .in({beside, radicand[23:0], 2'b0, left[DIGITS+1:0], root[DIGITS-2:0], !less[DIGITS+3]}),
          .out(next)
      );
    end
  endgenerate

  // Rounded. Neither is a root too large, nor is it subnormal.
  logic [7:0] exponent1;
  logic is_special1;
  logic [31:0] special1, result;
  logic [27:0] digits;
  logic [25:0] radicand;
  logic [DIGITS+1:0] rest;
  logic [DIGITS-1:0] root;
  assign {exponent1, is_special1, special1, radicand, rest, root} = steps[DIGITS-1].next;
  always_comb begin
    digits = {root, |rest, 2'b0};
    result = is_special1 ? special1 : round32(1'b0, $signed({4'b0, exponent1}), digits);
  end
  delay #(.WIDTH(32), .CYCLES(cut(LATENCY, CUTS, DIGITS + 1))) delay1 (.clk, .in(result), .out(y));
endmodule
