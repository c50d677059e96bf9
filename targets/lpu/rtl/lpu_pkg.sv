// What all parts of the LPU know: opcodes, the form of an instruction, and what the test bench lends the machine.
//
// The numbers are those of the binary form of programs. A time in a message is that of superlane 0, in which TIMING.md counts.

package lpu_pkg;
  localparam int OP_NOP = 1;
  localparam int OP_REPEAT = 2;
  localparam int OP_SYNC = 3;
  localparam int OP_NOTIFY = 4;
  localparam int OP_END = 5;
  localparam int OP_MEM = 16;
  localparam int OP_GATHER = 17;
  localparam int OP_ALU = 32;
  localparam int OP_LOAD = 48;
  localparam int OP_INSTALL = 49;
  localparam int OP_MULTIPLY = 50;
  localparam int OP_ACCUMULATE = 51;
  localparam int OP_SHIFT = 64;
  localparam int OP_DISTRIBUTE = 65;
  localparam int OP_TRANSPOSE = 66;

  // An instruction on its way north.
  typedef struct packed {
    logic valid;
    logic [3:0][31:0] word;
  } dispatch_t;

  // An operand in an instruction: a stream, the first of several, or what an ALU takes in place of one.
  typedef struct packed {
    logic [3:0] kind;
    logic [4:0] dtype;
    logic take;
    logic direction;
    logic [4:0] number;
  } operand_t;

  localparam int KIND_NONE = 0;
  localparam int KIND_STREAM = 1;
  localparam int KIND_ALU = 2;
  localparam int KIND_FLOAT = 3;
  localparam int KIND_INTEGER = 4;

  function automatic int opcode_of(input logic [31:0] word);
    return int'(word[7:0]);
  endfunction

  // Stops at an instruction that the unit does not know. Ends and notifies go north like all others, but there is nothing to
  // do for them.
  task automatic check_own(
      input int unsigned unit, input longint unsigned cycle, input logic [31:0] word, input logic known);
    /*verilator no_inline_task*/
    if (!known && opcode_of(word) != OP_END && opcode_of(word) != OP_NOTIFY)
      $fatal(1, "not this queue's: operation %0d in queue %0d, cycle %0d", opcode_of(word), unit, cycle);
  endtask

  // The instructions that queues hold, how many, and a word of one.
  import "DPI-C" function int unsigned queue_length(input int unsigned unit);
  import "DPI-C" function int unsigned queue_word(
      input int unsigned unit, input int unsigned index, input int unsigned word);

  // That a queue dispatches an operation.
  import "DPI-C" function void note_dispatch(input int unsigned unit, input longint unsigned cycle);

  // Bytes of memory as they are at first, memory and accumulators as they are at last.
  import "DPI-C" function int unsigned first_byte(input longint unsigned index);
  import "DPI-C" function void last_byte(input longint unsigned index, input int unsigned value);
  import "DPI-C" function void last_word(input longint unsigned index, input int unsigned value);
endpackage
