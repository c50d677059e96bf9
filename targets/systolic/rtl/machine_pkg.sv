// What all parts of the machine know: units, opcodes, and what travels from the sequencer to the units.
//
// The numbers are those of the binary form of programs, which targets/src/systolic/encoding.rs describes.

package machine_pkg;
  localparam int UNITS = 5;
  localparam int LOAD = 0;
  localparam int STORE = 1;
  localparam int PRELOAD = 2;
  localparam int ARRAY = 3;
  localparam int VECTOR = 4;

  localparam int OP_LOAD = 1;
  localparam int OP_STORE = 2;
  localparam int OP_LOAD_ROWS = 3;
  localparam int OP_STORE_ROWS = 4;
  localparam int OP_PRELOAD = 5;
  localparam int OP_MULTIPLY = 6;
  localparam int OP_MAP = 7;
  localparam int OP_FOLD = 8;
  localparam int OP_SCAN = 9;
  localparam int OP_SORT = 10;
  localparam int OP_OUTER = 11;

  // Words of the longest operation, in 32 bits: a select over eight dimensions takes 49.
  localparam int OPERATION_WORDS = 64;

  // An instruction in a queue: how many instructions must have completed on each unit before it starts, its address in
  // DRAM if it has one, and the words of its operation.
  typedef struct packed {
    logic [UNITS-1:0][31:0] wanted;
    logic [63:0] dram;
    logic [7:0] opcode;
    logic [OPERATION_WORDS-1:0][31:0] words;
  } instruction_t;

  // Word `index` of an operation, two words from there as one number, a word as a number with sign.
  function automatic int unsigned word_of(input instruction_t instruction, input int index);
    return instruction.words[index];
  endfunction

  function automatic longint long_of(input instruction_t instruction, input int index);
    return {instruction.words[index+1], instruction.words[index]};
  endfunction

  function automatic longint signed_of(input instruction_t instruction, input int index);
    return longint'($signed(instruction.words[index]));
  endfunction

  // Arithmetic of a vector lane; numbers are 64 bits in one of four classes. Behavioural: see bench/lanes.cpp.
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
  localparam int MAP_COPY = 0;
  localparam int MAP_UNARY = 1;
  localparam int MAP_BINARY = 2;
  localparam int MAP_SELECT = 3;
endpackage
