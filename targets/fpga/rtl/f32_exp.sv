// e to the power of a binary32 number: the result is less than 0.51 units in the last place off, subnormals included.
//
// x = k ln 2 + i / 512 + z, where e^(i / 512) stands in a table and e^z follows from three terms of its series. All of this is
// fixed-point arithmetic with 34 bits behind the binary point.

module f32_exp #(
    parameter int LATENCY = 16
) (
    input logic clk,
    input logic [31:0] a,
    output logic [31:0] y
);
  `include "float.svh"
  `include "cuts.svh"
  localparam int CUTS = 8;
  // log2 e with 16 bits behind the binary point, and ln 2 with 43.
  localparam logic signed [17:0] LOG2_E = 18'sd94548;
  localparam logic [42:0] LN_2 = 43'd6096987078286;
  // e^(i / 512) with 34 bits behind the binary point, and (j / 64 + 1 / 128)^3 / 6 of 2^-27 with 34.
  logic [35:0] powers[512];
  logic [4:0] cubes[64];
  `include "exp_tables.svh"

  // x in fixed point.
  logic [40:0] magnitude;
  logic signed [41:0] x0, x1, x2;
  logic is_special0, is_special1, is_special2, is_special3, is_special4, is_special5, is_special6, is_special7;
  logic [31:0] special0, special1, special2, special3, special4, special5, special6, special7;
  logic [7:0] up, down;
  always_comb begin
    up = a[30:23] - 8'd116;
    down = 8'd116 - a[30:23];
    if (a[30:23] >= 8'd116) magnitude = {17'b0, 1'b1, a[22:0]} << up[4:0];
    else magnitude = down > 8'd24 ? 41'b0 : {17'b0, |a[30:23], a[22:0]} >> down[4:0];
    x0 = a[31] ? -$signed({1'b0, magnitude}) : $signed({1'b0, magnitude});
    is_special0 = a[30:23] >= 8'd134;
    special0 = &a[30:23] && |a[22:0] ? CANONICAL_NAN : a[31] ? 32'b0 : 32'h7f800000;
  end
  delay #(.WIDTH(75), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (
      .clk, .in({x0, is_special0, special0}), .out({x1, is_special1, special1}));

  // k is never too large, by a margin for what is cut off here.
  logic signed [34:0] product1, biased;
  logic signed [8:0] k1, k2;
  assign product1 = $signed(x1[41:25]) * LOG2_E;
  assign biased = product1 - 35'sd131072;
  assign k1 = biased[33:25];
  delay #(.WIDTH(84), .CYCLES(cut(LATENCY, CUTS, 1))) delay1 (
      .clk, .in({x1, k1, is_special1, special1}), .out({x2, k2, is_special2, special2}));

  // What k leaves.
  logic signed [52:0] multiple, left;
  logic [33:0] rest2, rest3;
  logic signed [8:0] k3, k4, k5, k6;
  always_comb begin
    multiple = k2[8] ? -($signed({10'b0, LN_2}) <<< 8) : 53'sd0;
    for (int i = 0; i < 8; i++) begin
      if (k2[i]) multiple = multiple + ($signed({10'b0, LN_2}) <<< i);
    end
    left = $signed({{2{x2[41]}}, x2, 9'b0}) - multiple;
    rest2 = left[42:9];
  end
  delay #(.WIDTH(76), .CYCLES(cut(LATENCY, CUTS, 2))) delay2 (
      .clk, .in({rest2, k2, is_special2, special2}), .out({rest3, k3, is_special3, special3}));

  // The table, and powers of what is left.
  logic [35:0] power3, power4, power5, power6;
  logic [33:0] square3, square4;
  logic [24:0] rest4;
  logic [4:0] cube4;
  assign power3 = powers[rest3[33:25]];
  assign square3 = {17'b0, rest3[24:8]} * {17'b0, rest3[24:8]};
  delay #(.WIDTH(36), .CYCLES(cut(LATENCY, CUTS, 3))) delay3 (.clk, .in(power3), .out(power4));
  delay #(.WIDTH(34), .CYCLES(cut(LATENCY, CUTS, 3))) delay3b (.clk, .in(square3), .out(square4));
  delay #(.WIDTH(72), .CYCLES(cut(LATENCY, CUTS, 3))) delay3c (
      .clk,
      .in({rest3[24:0], cubes[rest3[24:19]], k3, is_special3, special3}),
      .out({rest4, cube4, k4, is_special4, special4})
  );
  logic [25:0] z4, z5;
  assign z4 = {1'b0, rest4} + {11'b0, square4[33:19]} + {21'b0, cube4};
  delay #(.WIDTH(104), .CYCLES(cut(LATENCY, CUTS, 4))) delay4 (
      .clk,
      .in({z4, power4, k4, is_special4, special4}),
      .out({z5, power5, k5, is_special5, special5})
  );

  // The result is the power and z times as much.
  logic [51:0] product5, product6;
  assign product5 = {26'b0, power5[35:10]} * {26'b0, z5};
  delay #(.WIDTH(52), .CYCLES(cut(LATENCY, CUTS, 5))) delay5 (.clk, .in(product5), .out(product6));
  delay #(.WIDTH(78), .CYCLES(cut(LATENCY, CUTS, 5))) delay5b (
      .clk, .in({power5, k5, is_special5, special5}), .out({power6, k6, is_special6, special6}));
  logic [35:0] sum6;
  logic [27:0] significand6, significand7;
  logic signed [11:0] exponent6, exponent7;
  always_comb begin
    sum6 = power6 + {8'b0, product6[51:24]};
    significand6 = sum6[35] ? {sum6[35:9], |sum6[8:0]} : {sum6[34:8], |sum6[7:0]};
    exponent6 = $signed({{3{k6[8]}}, k6}) + $signed({11'b0, sum6[35]}) + 12'sd127;
  end
  delay #(.WIDTH(73), .CYCLES(cut(LATENCY, CUTS, 6))) delay6 (
      .clk,
      .in({significand6, exponent6, is_special6, special6}),
      .out({significand7, exponent7, is_special7, special7})
  );

  // Rounded.
  logic [31:0] result;
  assign result = is_special7 ? special7 : round32(1'b0, exponent7, significand7);
  delay #(.WIDTH(32), .CYCLES(cut(LATENCY, CUTS, 7))) delay7 (.clk, .in(result), .out(y));
endmodule
