// The product of two binary16 numbers in binary32, which is exact. It stands beside the arithmetic of float.svh.

function automatic logic [31:0] product_of_halves(input logic [15:0] a, input logic [15:0] b);
  /*verilator no_inline_task*/
  logic sign;
  logic [21:0] product;
  logic [27:0] significand;
  logic [4:0] zeros;
  logic signed [11:0] exponent;
  logic a_nan, b_nan, a_inf, b_inf, a_zero, b_zero;
  sign = a[15] ^ b[15];
  a_nan = &a[14:10] && |a[9:0];
  b_nan = &b[14:10] && |b[9:0];
  a_inf = &a[14:10] && !(|a[9:0]);
  b_inf = &b[14:10] && !(|b[9:0]);
  a_zero = !(|a[14:0]);
  b_zero = !(|b[14:0]);
  product = {11'b0, |a[14:10], a[9:0]} * {11'b0, |b[14:10], b[9:0]};
  significand = {product, 6'b0};
  zeros = leading_zeros28(significand);
  // Both exponents are biased by 15. A significand that has its first digit in bit 27 is between 2 and 4.
  exponent = 12'($signed({7'b0, a[14:10]})) + 12'($signed({7'b0, b[14:10]}))
    + 12'(!(|a[14:10])) + 12'(!(|b[14:10])) - 12'sd30 + 12'sd127 + 12'sd1 - 12'($signed({7'b0, zeros}));
  if (a_nan || b_nan || (a_inf && b_zero) || (b_inf && a_zero)) product_of_halves = CANONICAL_NAN;
  else if (a_inf || b_inf) product_of_halves = {sign, 8'hff, 23'b0};
  else if (a_zero || b_zero) product_of_halves = {sign, 31'b0};
  else product_of_halves = round32(sign, exponent, significand << zeros);
endfunction
