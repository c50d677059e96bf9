// The order of binary32 numbers, in which zeros are equal and nothing compares to what is no number.

function automatic logic is_nan(input logic [31:0] x);
  is_nan = &x[30:23] && |x[22:0];
endfunction

function automatic logic is_equal(input logic [31:0] a, input logic [31:0] b);
  is_equal = !is_nan(a) && !is_nan(b) && (a == b || !(|{a[30:0], b[30:0]}));
endfunction

function automatic logic is_less(input logic [31:0] a, input logic [31:0] b);
  logic below;
  if (a[31] != b[31]) below = a[31] && |{a[30:0], b[30:0]};
  else below = a[31] ? a[30:0] > b[30:0] : a[30:0] < b[30:0];
  is_less = below && !is_nan(a) && !is_nan(b);
endfunction
