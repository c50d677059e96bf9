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

  // Kinds of maps.
  localparam int MAP_COPY = 0;
  localparam int MAP_UNARY = 1;
  localparam int MAP_BINARY = 2;
  localparam int MAP_SELECT = 3;
endpackage
