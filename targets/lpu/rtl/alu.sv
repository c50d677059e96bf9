// One superlane's part of an ALU of the vector unit. Behavioural as to its arithmetic, real as to its time: a result goes
// through LATENCY registers, and what other ALUs see, and the streams get, is the last.

module alu
  import lanes_pkg::*;
  import lpu_pkg::*;
#(
    parameter int LANES = 4,
    parameter int STREAMS = 8,
    parameter int ALUS = 1,
    parameter int LATENCY = 1
) (
    input logic clk,
    input int unsigned queue,
    input int unsigned superlane,
    input longint unsigned now,
    input dispatch_t instruction,
    input logic [2*STREAMS-1:0] valid,
    input logic [2*STREAMS-1:0][8*LANES-1:0] data,
    output logic [2*STREAMS-1:0] taken,
    // What all ALUs have ready in this cycle, and this one: numbers and their class.
    input logic [ALUS-1:0] ready,
    input logic [ALUS-1:0][1:0] ready_class,
    input logic [ALUS-1:0][LANES-1:0][63:0] ready_numbers,
    output logic result,
    output logic [1:0] result_class,
    output logic [LANES-1:0][63:0] result_numbers,
    // An element has up to eight bytes.
    output logic [7:0] drives,
    output logic [7:0][5:0] places,
    output logic [7:0][8*LANES-1:0] vectors,
    output logic busy
);
  /*verilator no_inline_module*/
  `include "streams.svh"

  // The cycle in superlane 0.
  longint unsigned cycle;
  assign cycle = now - longint'(superlane);

  localparam int COPY = 0;
  localparam int UNARY = 1;
  localparam int BINARY = 2;
  localparam int SELECT = 3;
  localparam int ACCUMULATE = 4;

  // Results in flight; number i is i cycles old.
  typedef struct packed {
    logic valid;
    logic [1:0] klass;
    logic [LANES-1:0][63:0] numbers;
    logic [7:0] drives;
    logic [7:0][5:0] places;
    logic [7:0][W-1:0] vectors;
  } result_t;
  result_t results[1:LATENCY];

  // The running result.
  logic runs = 0;
  logic [1:0] running_class;
  logic [LANES-1:0][63:0] running;

  logic works, first;
  logic [2:0][15:0] operands;
  operand_t to;
  int kind, count;
  assign works = instruction.valid && opcode_of(instruction.word[0]) == OP_ALU;
  assign operands = {instruction.word[2][15:0], instruction.word[1]};
  assign to = instruction.word[2][31:16];
  assign first = instruction.word[0][24];
  assign kind = int'(instruction.word[0][15:8]);
  assign count = kind == SELECT ? 3 : kind == BINARY ? 2 : 1;

  // The bits of an operand's elements, from the streams, of an ALU's numbers, or of the instruction's number.
  task automatic find_bits(
      input operand_t operand, input logic [N-1:0][W-1:0] data, input logic [LANES-1:0][63:0] numbers,
      input logic [31:0] number, output logic [LANES-1:0][63:0] bits);
    /*verilator no_inline_task*/
    logic [63:0] element;
    bits = '0;
    for (int lane = LANES - 1; lane >= 0; lane--) begin
      element = numbers[lane];
      if (int'(operand.kind) == KIND_STREAM) element = '0;
      if (int'(operand.kind) == KIND_FLOAT) element = {32'b0, number};
      if (int'(operand.kind) == KIND_INTEGER) element = {{32{number[31]}}, number};
      for (int i = 0; i < 8; i++)
        if (int'(operand.kind) == KIND_STREAM && i < bytes_of(int'(operand.dtype)))
          element = element | (64'(data[place_of(operand, i)][8*lane+:8]) << (8 * i));
      bits = (bits << 64) | (64 * LANES)'(element);
    end
  endtask

  // Bytes of a type's elements, and the widest type of a class.
  function automatic int bytes_of(input int dtype);
    /*verilator no_inline_task*/
    case (dtype)
      0, 6, 11: return 8;
      1, 7, 12: return 4;
      2, 3, 8, 13: return 2;
      default: return 1;
    endcase
  endfunction

  function automatic int widest_of(input logic [1:0] klass);
    case (int'(klass))
      CLASS_BINARY32: return DTYPE_F32;
      CLASS_BINARY64: return DTYPE_F64;
      CLASS_SIGNED: return DTYPE_I64;
      default: return DTYPE_U64;
    endcase
  endfunction

  always_comb begin
    taken = '0;
    for (int o = 0; o < 3; o++)
      if (works && o < count) taken = taken | taken_by(operands[o], bytes_of(int'(operands[o][11:7])));
  end

  // What the operands are in this cycle: their types, numbers as of the widest type of their class, and their bits.
  int types[3];
  logic [2:0][LANES-1:0][63:0] bits;
  always_comb begin
    for (int o = 0; o < 3; o++) begin
      types[o] = DTYPE_I64;
      if (int'(operands[o][15:12]) == KIND_STREAM) types[o] = int'(operands[o][11:7]);
      if (int'(operands[o][15:12]) == KIND_ALU) types[o] = widest_of(ready_class[operands[o][4:0]]);
      if (int'(operands[o][15:12]) == KIND_FLOAT) types[o] = DTYPE_F32;
      bits[o] = '0;
      if (works && o < count)
        find_bits(operands[o], data, ready_numbers[operands[o][4:0]], instruction.word[3], bits[o]);
    end
  end

  // The type in which is computed: that of the first value which is no number, else the number's.
  int computed, values;
  logic [2:0] numbers;
  assign values = kind == SELECT ? 1 : 0;
  always_comb begin
    for (int o = 0; o < 3; o++)
      numbers[o] = int'(operands[o][15:12]) == KIND_FLOAT || int'(operands[o][15:12]) == KIND_INTEGER;
    computed = types[values];
    for (int o = 2; o >= 0; o--) if (o >= values && o < count && !numbers[o]) computed = types[o];
  end

  task automatic check_type(input int unsigned queue, input longint unsigned cycle, input int dtype);
    /*verilator no_inline_task*/
    if (dtype > DTYPE_BOOL || lane_bits(dtype) < 8)
      $fatal(1, "malformed: type %0d in queue %0d, cycle %0d", dtype, queue, cycle);
  endtask

  task automatic check_operand(
      input int unsigned queue, input longint unsigned cycle, input logic [N-1:0] valid, input logic [ALUS-1:0] ready,
      input operand_t operand);
    /*verilator no_inline_task*/
    if (int'(operand.kind) == KIND_STREAM) begin
      check_type(queue, cycle, int'(operand.dtype));
      check_read(queue, cycle, valid, operand, bytes_of(int'(operand.dtype)));
    end
    if (int'(operand.kind) == KIND_ALU && int'(operand.number) >= ALUS)
      $fatal(1, "beyond the last ALU: queue %0d, cycle %0d", queue, cycle);
    if (int'(operand.kind) == KIND_ALU && !ready[operand.number])
      $fatal(1, "nothing there: queue %0d takes a result of ALU %0d that there is not, cycle %0d", queue,
             operand.number, cycle);
    if (int'(operand.kind) == KIND_NONE || int'(operand.kind) > KIND_INTEGER)
      $fatal(1, "malformed: operand of queue %0d, cycle %0d", queue, cycle);
  endtask

  // The result in a lane: a number of the class, or of the unsigned one if it is a comparison's.
  function automatic longint unsigned computed_in_lane(
      input int kind, input int fn, input int computed, input logic first, input int type_0, input int type_1,
      input int type_2, input longint unsigned bits_0, input longint unsigned bits_1, input longint unsigned bits_2,
      input longint unsigned running);
    /*verilator no_inline_task*/
    int klass;
    longint unsigned a, b;
    klass = lane_class(computed);
    b = 0;
    if (kind == SELECT) begin
      a = lane_load(type_0, CLASS_UNSIGNED, bits_0);
      if (a != 0) b = lane_load(type_1, klass, bits_1);
      if (a == 0) b = lane_load(type_2, klass, bits_2);
      return b;
    end
    a = lane_load(type_0, klass, bits_0);
    if (kind == BINARY) b = lane_load(type_1, klass, bits_1);
    if (kind == UNARY) return lane_unary(klass, fn, a, int'(computed == DTYPE_BOOL));
    if (kind == BINARY && lane_is_comparison(fn) != 0) return longint'(lane_compare(klass, fn, a, b));
    if (kind == BINARY) return lane_binary(klass, fn, a, b, lane_bits(computed));
    if (kind == ACCUMULATE && !first) return lane_combine(klass, fn, running, a);
    return a;
  endfunction

  // Computes, and hands the result to the first register.
  task automatic compute();
    int klass, klass_out, fn;
    longint unsigned number;
    logic [63:0] element;
    logic keeps_bits;
    klass = lane_class(computed);
    fn = int'(instruction.word[0][23:16]);
    klass_out = klass;
    if (kind == BINARY && lane_is_comparison(fn) != 0) klass_out = CLASS_UNSIGNED;
    if (kind == ACCUMULATE && !first && (!runs || int'(running_class) != klass))
      $fatal(1, "class changes: queue %0d accumulates without a first of this class, cycle %0d", queue, cycle);
    // A copy between equal types changes no bit.
    keeps_bits = kind == COPY && int'(operands[0][15:12]) == KIND_STREAM && operands[0][11:7] == to.dtype;
    for (int lane = 0; lane < LANES; lane++) begin
      number = computed_in_lane(
          kind, fn, computed, first, types[0], types[1], types[2], bits[0][lane], bits[1][lane], bits[2][lane],
          running[lane]);
      if (kind == ACCUMULATE) running[lane] <= number;
      element = bits[0][lane];
      if (!keeps_bits) element = lane_encode(klass_out, number, int'(to.dtype));
      results[1].numbers[lane] <= number;
      for (int i = 0; i < 8; i++) results[1].vectors[i][8*lane+:8] <= element[8*i+:8];
    end
    results[1].klass <= 2'(klass_out);
    if (kind == ACCUMULATE) begin
      runs <= 1;
      running_class <= 2'(klass);
    end
  endtask

  assign result = results[LATENCY].valid;
  assign result_class = results[LATENCY].klass;
  assign result_numbers = results[LATENCY].numbers;
  assign drives = results[LATENCY].drives;
  assign places = results[LATENCY].places;
  assign vectors = results[LATENCY].vectors;

  always_comb begin
    busy = instruction.valid;
    for (int age = 1; age < LATENCY; age++) busy = busy || results[age].valid;
  end

  initial for (int age = 1; age <= LATENCY; age++) results[age] = '0;

  always_ff @(posedge clk) begin
    for (int age = 2; age <= LATENCY; age++) results[age] <= results[age-1];
    results[1].valid <= works;
    results[1].drives <= '0;
    if (instruction.valid) check_own(queue, cycle, instruction.word[0], works);
    if (works) begin
      if (kind > ACCUMULATE) $fatal(1, "malformed: operation of queue %0d, cycle %0d", queue, cycle);
      for (int o = 0; o < 3; o++) if (o < count) check_operand(queue, cycle, valid, ready, operands[o]);
      if (int'(to.kind) != KIND_NONE) begin
        check_type(queue, cycle, int'(to.dtype));
        check_exists(queue, cycle, to, bytes_of(int'(to.dtype)));
        for (int i = 0; i < 8; i++) begin
          results[1].drives[i] <= i < bytes_of(int'(to.dtype));
          results[1].places[i] <= place_of(to, i);
        end
      end
      compute();
    end
  end
endmodule
