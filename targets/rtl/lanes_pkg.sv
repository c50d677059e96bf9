// The arithmetic of a vector lane, which the vector units of all machines share, and the numbers that it goes by.
//
// Behavioural: see lanes.h, which says what the functions do, and lanes.cpp. A number is 64 bits of one of four classes.

package lanes_pkg;
  import "DPI-C" function int lane_class(input int dtype);
  import "DPI-C" function int lane_bits(input int dtype);
  import "DPI-C" function longint unsigned lane_load(input int dtype, input int klass, input longint unsigned bits);
  import "DPI-C" function longint unsigned lane_encode(input int klass, input longint unsigned number, input int dtype);
  import "DPI-C" function longint unsigned lane_float(input int klass, input longint unsigned bits);
  import "DPI-C" function longint unsigned lane_integer(input int klass, input longint unsigned value);
  import "DPI-C" function longint unsigned lane_unary(
      input int klass, input int fn, input longint unsigned x, input int truth);
  import "DPI-C" function longint unsigned lane_binary(
      input int klass, input int fn, input longint unsigned a, input longint unsigned b, input int bits);
  import "DPI-C" function int lane_compare(
      input int klass, input int fn, input longint unsigned a, input longint unsigned b);
  import "DPI-C" function int lane_is_comparison(input int fn);
  import "DPI-C" function longint unsigned lane_neutral(input int klass, input int fold, input int dtype);
  import "DPI-C" function longint unsigned lane_combine(
      input int klass, input int fold, input longint unsigned a, input longint unsigned b);
  import "DPI-C" function int lane_order(input int klass, input longint unsigned a, input longint unsigned b);
  import "DPI-C" function int lane_is_special(input int kind, input int fn);
  import "DPI-C" function int unsigned lane_bf16_round(input int dtype, input longint unsigned bits);

  // Classes of numbers, types and functions that the units tell apart.
  localparam int CLASS_BINARY32 = 0;
  localparam int CLASS_BINARY64 = 1;
  localparam int CLASS_SIGNED = 2;
  localparam int CLASS_UNSIGNED = 3;
  localparam int DTYPE_F64 = 0;
  localparam int DTYPE_F32 = 1;
  localparam int DTYPE_F8E5M2 = 5;
  localparam int DTYPE_I64 = 6;
  localparam int DTYPE_U64 = 11;
  localparam int DTYPE_BOOL = 16;
  localparam int ADD = 0;
  localparam int MAX = 8;
  localparam int MIN = 9;
  localparam int MUL = 11;
  localparam int FOLD_SUM = 0;
  localparam int FOLD_DOT = 4;
endpackage
