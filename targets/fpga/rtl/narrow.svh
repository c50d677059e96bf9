// Floats of 16 bits: from binary32 numbers, rounded to nearest even, and to them.

function automatic logic [15:0] rounded_bf16(input logic [31:0] x);
  logic [31:0] sum;
  sum = x + 32'h7fff + {31'b0, x[16]};
  rounded_bf16 = &x[30:23] && |x[22:0] ? 16'h7fc0 : sum[31:16];
endfunction

function automatic logic [15:0] rounded_f16(input logic [31:0] x);
  logic [7:0] down;
  logic [36:0] moved;
  logic [15:0] rounded;
  // The significand with what is dropped behind it: 24 bits, of which a normal number keeps 11.
  down = 8'd113 - x[30:23];
  if (x[30:23] >= 8'd113) moved = {5'b0, x[30:23] - 8'd112, x[22:0], 1'b0};
  else if (down > 8'd24) moved = {36'b0, |x[30:0]};
  else begin
    moved = {13'b0, |x[30:23], x[22:0]} << 1 >> down[4:0];
    moved[0] = moved[0] | (|({|x[30:23], x[22:0], 1'b0} & ~(25'h1ffffff << down[4:0])));
  end
  rounded = moved[29:14] + {15'b0, moved[13] & (moved[14] | (|moved[12:0]))};
  if (&x[30:23]) rounded_f16 = |x[22:0] ? 16'h7e00 : {x[31], 15'h7c00};
  else if (x[30:23] >= 8'd143 || rounded >= 16'h7c00) rounded_f16 = {x[31], 15'h7c00};
  else rounded_f16 = {x[31], rounded[14:0]};
endfunction

function automatic logic [31:0] widened_f16(input logic [15:0] x);
  logic [3:0] zeros;
  logic [9:0] fraction;
  logic found;
  zeros = 4'd0;
  found = 1'b0;
  for (int i = 9; i >= 0; i--) begin
    if (x[i] && !found) begin
      zeros = 4'(9 - i);
      found = 1'b1;
    end
  end
  fraction = x[9:0] << zeros << 1;
  if (&x[14:10]) widened_f16 = |x[9:0] ? 32'h7fc00000 : {x[15], 8'hff, 23'b0};
  else if (|x[14:10]) widened_f16 = {x[15], {3'b0, x[14:10]} + 8'd112, x[9:0], 13'b0};
  else if (!found) widened_f16 = {x[15], 31'b0};
  else widened_f16 = {x[15], 8'd112 - {4'b0, zeros}, fraction, 13'b0};
endfunction
