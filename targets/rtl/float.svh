// Arithmetic of the array's cells: products of bfloat16 numbers and binary32 sums, rounded to nearest even, subnormals
// included. Every NaN is the quiet one without payload. Plain functions that synthesise.

localparam logic [31:0] CANONICAL_NAN = 32'h7fc00000;

// How many zeros stand before the first one of 28 bits.
function automatic logic [4:0] leading_zeros28(input logic [27:0] value);
  /*verilator no_inline_task*/
  logic found;
  leading_zeros28 = 5'd28;
  found = 1'b0;
  for (int i = 27; i >= 0; i--) begin
    if (value[i] && !found) begin
      leading_zeros28 = 5'(27 - i);
      found = 1'b1;
    end
  end
endfunction

// The binary32 number nearest to (-1)^sign * significand * 2^(exponent - 27 - 127), where the significand has bit 27 set
// unless it is zero, and bit 0 of it stands for everything below.
function automatic logic [31:0] round32(input logic sign, input logic signed [11:0] exponent, input logic [27:0] significand);
  /*verilator no_inline_task*/
  logic signed [11:0] biased;
  logic [27:0] kept;
  logic [27:0] dropped;
  logic sticky;
  logic [24:0] rounded;
  biased = exponent;
  kept = significand;
  if (biased <= 0) begin
    // Subnormal: the binary point stays where it is, the digits move out.
    if (biased < -26) begin
      kept = {27'b0, |significand};
    end else begin
      dropped = significand & ~(28'hfffffff << (1 - biased));
      sticky = |dropped;
      kept = (significand >> (1 - biased));
      kept[0] = kept[0] | sticky;
    end
    biased = 0;
  end
  rounded = {1'b0, kept[27:4]} + {24'b0, kept[3] & (|kept[2:0] | kept[4])};
  if (biased == 0) begin
    // A carry into the hidden bit makes the smallest normal number, as it should.
    round32 = {sign, 7'b0, rounded[23:0]};
  end else begin
    if (rounded[24]) begin
      rounded = rounded >> 1;
      biased = biased + 12'sd1;
    end
    round32 = biased >= 255 ? {sign, 8'hff, 23'b0} : {sign, biased[7:0], rounded[22:0]};
  end
endfunction

// The product of two bfloat16 numbers in binary32. Exact, but where it is too small or too large for that.
function automatic logic [31:0] multiply16(input logic [15:0] a, input logic [15:0] b);
  /*verilator no_inline_task*/
  logic sign;
  logic [15:0] product;
  logic [27:0] significand;
  logic [4:0] zeros;
  logic signed [11:0] exponent;
  logic a_nan, b_nan, a_inf, b_inf, a_zero, b_zero;
  sign = a[15] ^ b[15];
  a_nan = &a[14:7] && |a[6:0];
  b_nan = &b[14:7] && |b[6:0];
  a_inf = &a[14:7] && !(|a[6:0]);
  b_inf = &b[14:7] && !(|b[6:0]);
  a_zero = !(|a[14:0]);
  b_zero = !(|b[14:0]);
  product = {|a[14:7], a[6:0]} * {|b[14:7], b[6:0]};
  significand = {product, 12'b0};
  zeros = leading_zeros28(significand);
  exponent = 12'($signed({4'b0, a[14:7]})) + 12'($signed({4'b0, b[14:7]}))
    + 12'(!(|a[14:7])) + 12'(!(|b[14:7])) - 12'sd126 - 12'($signed({7'b0, zeros}));
  if (a_nan || b_nan || (a_inf && b_zero) || (b_inf && a_zero)) multiply16 = CANONICAL_NAN;
  else if (a_inf || b_inf) multiply16 = {sign, 8'hff, 23'b0};
  else if (a_zero || b_zero) multiply16 = {sign, 31'b0};
  else multiply16 = round32(sign, exponent, significand << zeros);
endfunction

// The sum of two binary32 numbers.
function automatic logic [31:0] add32(input logic [31:0] a, input logic [31:0] b);
  /*verilator no_inline_task*/
  logic [31:0] greater, lesser;
  logic [7:0] greater_exponent, lesser_exponent, distance;
  logic [27:0] greater_significand, lesser_significand, moved, sum;
  logic sticky, carry;
  logic [4:0] zeros;
  logic signed [11:0] exponent;
  if (a[30:0] >= b[30:0]) begin
    greater = a;
    lesser = b;
  end else begin
    greater = b;
    lesser = a;
  end
  greater_exponent = greater[30:23] == 0 ? 8'd1 : greater[30:23];
  lesser_exponent = lesser[30:23] == 0 ? 8'd1 : lesser[30:23];
  greater_significand = {|greater[30:23], greater[22:0], 4'b0};
  lesser_significand = {|lesser[30:23], lesser[22:0], 4'b0};
  distance = greater_exponent - lesser_exponent;
  if (distance > 27) begin
    moved = {27'b0, |lesser_significand};
  end else begin
    sticky = |(lesser_significand & ~(28'hfffffff << distance));
    moved = lesser_significand >> distance;
    moved[0] = moved[0] | sticky;
  end
  carry = 1'b0;
  if (greater[31] == lesser[31]) {carry, sum} = {1'b0, greater_significand} + {1'b0, moved};
  else sum = greater_significand - moved;
  exponent = 12'($signed({4'b0, greater_exponent}));
  if (carry) begin
    sum = {1'b1, sum[27:2], sum[1] | sum[0]};
    exponent = exponent + 12'sd1;
  end
  zeros = leading_zeros28(sum);
  if ((&greater[30:23] && |greater[22:0]) || (&lesser[30:23] && |lesser[22:0])) add32 = CANONICAL_NAN;
  else if (&greater[30:23]) add32 = &lesser[30:23] && (a[31] != b[31]) ? CANONICAL_NAN : greater;
  else if (sum == 0) add32 = {a[31] & b[31], 31'b0};
  else add32 = round32(greater[31], exponent - 12'($signed({7'b0, zeros})), sum << zeros);
endfunction
