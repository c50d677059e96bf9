// The sequencer: reads the program, and hands one instruction a cycle to the queue of its unit.
//
// The program's memory is outside, as wide as an instruction. Calls take no cycles: the next routine is looked up while the
// last instruction of the one before is handed out. Waits become numbers of completed instructions here, since the
// sequencer alone knows how many it has handed out.

module sequencer
  import machine_pkg::*;
#(
    // Whether preloads and passes run side by side.
    parameter bit OVERLAP = 1
) (
    input logic clk,
    input logic running,
    // Whether each unit's queue has a free place in this cycle.
    input logic [UNITS-1:0] free,
    // The instruction that is handed out in this cycle, and to whom.
    output logic [UNITS-1:0] valid,
    output instruction_t instruction,
    output logic finished
);
  import "DPI-C" function int unsigned program_word(input int unsigned index);

  // Instructions that each unit has been handed.
  int unsigned dispatched[UNITS];
  // Words: where the lengths of the routines stand, the bases of the call at hand, the next call, the instructions.
  int unsigned lengths_at, bases_at, bases, call_at, code_at;
  int unsigned calls_left;
  // The next instruction, and the end of its routine.
  int unsigned at, end_at;

  // Words of the instruction at hand, its unit, and whether there is one.
  int unsigned length;
  int unit;
  logic ready;

  function automatic logic [63:0] long_word(input int unsigned index);
    return {program_word(index + 1), program_word(index)};
  endfunction

  // Goes on to the next call of a routine that is not empty, if the one at hand is over.
  task automatic next_call();
    int unsigned routine, start;
    while (at == end_at && calls_left > 0) begin
      routine = program_word(call_at);
      bases = program_word(call_at + 1) & 32'hff;
      bases_at = call_at + 2;
      call_at = bases_at + 2 * bases;
      calls_left = calls_left - 1;
      start = code_at;
      for (int unsigned r = 0; r < routine; r++) start = start + program_word(lengths_at + r);
      at = start;
      end_at = start + program_word(lengths_at + routine);
    end
  endtask

  // What a base register holds.
  function automatic logic [63:0] base(input int unsigned register_number);
    return register_number == 0 || register_number > bases ? 64'b0 : long_word(bases_at + 2 * (register_number - 1));
  endfunction

  // Reads the instruction at `at`, if the program has not ended.
  task automatic decode();
    instruction_t decoded;
    int unsigned header, word, lag, handed;
    int opcode;
    header = program_word(at);
    length = (header >> 8) & 32'hffff;
    opcode = int'(header[7:0]);
    word = at + 1;
    decoded = '0;
    decoded.opcode = header[7:0];
    for (int u = 0; u < UNITS; u++) begin
      if (header[24+u]) begin
        lag = program_word(word) & 32'hffff;
        handed = dispatched[u];
        decoded.wanted[u] = handed > lag ? handed - lag : 0;
        word = word + 1;
      end
    end
    if (!OVERLAP && (opcode == OP_PRELOAD || opcode == OP_MULTIPLY || opcode == OP_OUTER)) begin
      decoded.wanted[PRELOAD] = dispatched[PRELOAD];
      decoded.wanted[ARRAY] = dispatched[ARRAY];
    end
    for (int i = 0; i < OPERATION_WORDS; i++) begin
      if (word + i < at + length) decoded.words[i] = program_word(word + i);
    end
    case (opcode)
      OP_LOAD, OP_STORE: decoded.dram = long_word(word) + base((program_word(word + 3) >> 16) & 32'hff);
      OP_LOAD_ROWS, OP_STORE_ROWS: decoded.dram = long_word(word) + base(program_word(word + 13) >> 24);
      default: decoded.dram = 64'b0;
    endcase
    case (opcode)
      OP_LOAD, OP_LOAD_ROWS: unit <= LOAD;
      OP_STORE, OP_STORE_ROWS: unit <= STORE;
      OP_PRELOAD: unit <= PRELOAD;
      OP_MULTIPLY, OP_OUTER: unit <= ARRAY;
      default: unit <= VECTOR;
    endcase
    instruction <= decoded;
  endtask

  // Reads where things are in the program.
  task automatic rewind();
    int unsigned routines, word;
    routines = program_word(0);
    calls_left = program_word(1);
    lengths_at = 2;
    call_at = 2 + routines;
    word = call_at;
    for (int unsigned c = 0; c < calls_left; c++) word = word + 2 + 2 * (program_word(word + 1) & 32'hff);
    code_at = word;
    at = 0;
    end_at = 0;
    for (int u = 0; u < UNITS; u++) dispatched[u] = 0;
  endtask

  // A place in a queue is free in the very cycle in which an instruction leaves it.
  always_comb begin
    valid = '0;
    valid[unit] = running && ready && free[unit];
  end
  assign finished = running && !ready;

  always @(posedge clk) begin
    if (!running || |valid) begin
      if (!running) begin
        rewind();
      end else begin
        dispatched[unit] = dispatched[unit] + 1;
        at = at + length;
      end
      next_call();
      ready <= at != end_at;
      if (at != end_at) decode();
    end
  end
endmodule
