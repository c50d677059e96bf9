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

  logic works;
  logic [2:0][15:0] operands;
  operand_t to;
  int kind, count;
  assign works = is_operation(instruction, OP_ALU);
  assign operands = {instruction.word[2][15:0], instruction.word[1]};
  assign to = instruction.word[2][31:16];
  assign kind = int'(instruction.word[0][15:8]);
  assign count = kind == SELECT ? 3 : kind == BINARY ? 2 : 1;

  // Bytes of a type's elements, and the widest type of a class.
  function automatic int bytes_of(input int dtype);
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
    if (works) begin
      for (int o = 0; o < 3; o++)
        if (o < count) taken = taken | taken_by(operands[o], bytes_of(int'(operands[o][11:7])));
    end
  end

  // The type of an operand's elements; numbers count as of the widest of their class.
  function automatic int type_of(input operand_t operand);
    case (int'(operand.kind))
      KIND_STREAM: return int'(operand.dtype);
      KIND_ALU: return widest_of(ready_class[operand.number]);
      KIND_FLOAT: return DTYPE_F32;
      default: return DTYPE_I64;
    endcase
  endfunction

  // The bits of an operand's element in a lane.
  function automatic logic [63:0] bits_of(input operand_t operand, input int lane);
    case (int'(operand.kind))
      KIND_STREAM: begin
        bits_of = '0;
        for (int i = 0; i < bytes_of(int'(operand.dtype)); i++)
          bits_of[8*i+:8] = data[place_of(operand, i)][8*lane+:8];
      end
      KIND_ALU: bits_of = ready_numbers[operand.number][lane];
      KIND_FLOAT: bits_of = {32'b0, instruction.word[3]};
      default: bits_of = {{32{instruction.word[3][31]}}, instruction.word[3]};
    endcase
  endfunction

  function automatic logic is_number(input operand_t operand);
    return int'(operand.kind) == KIND_FLOAT || int'(operand.kind) == KIND_INTEGER;
  endfunction

  // An operand's element as a number of a class.
  function automatic longint unsigned number_of(input operand_t operand, input int lane, input int klass);
    return lane_load(type_of(operand), klass, bits_of(operand, lane));
  endfunction

  // The type in which is computed: that of the first operand which is no number, else the number's.
  function automatic int computed_type();
    int values;
    logic found;
    values = kind == SELECT ? 1 : 0;
    found = 0;
    computed_type = type_of(operands[values]);
    for (int o = 0; o < 3; o++) begin
      if (o >= values && o < count && !found && !is_number(operands[o])) begin
        computed_type = type_of(operands[o]);
        found = 1;
      end
    end
  endfunction

  task automatic check_type(input int dtype);
    if (dtype > DTYPE_BOOL || dtype == 10 || dtype == 15)
      $fatal(1, "malformed: type %0d in queue %0d, cycle %0d", dtype, queue, now - longint'(superlane));
  endtask

  task automatic check_operand(input operand_t operand);
    if (int'(operand.kind) == KIND_STREAM) begin
      check_type(int'(operand.dtype));
      check_read(queue, operand, bytes_of(int'(operand.dtype)));
    end
    if (int'(operand.kind) == KIND_ALU && int'(operand.number) >= ALUS)
      $fatal(1, "beyond the last ALU: queue %0d, cycle %0d", queue, now - longint'(superlane));
    if (int'(operand.kind) == KIND_ALU && !ready[operand.number])
      $fatal(1, "nothing there: queue %0d takes a result of ALU %0d that there is not, cycle %0d", queue,
             operand.number, now - longint'(superlane));
    if (int'(operand.kind) == KIND_NONE || int'(operand.kind) > KIND_INTEGER)
      $fatal(1, "malformed: operand of queue %0d, cycle %0d", queue, now - longint'(superlane));
  endtask

  // Computes, and hands the result to the first register.
  task automatic compute();
    int computed, klass, klass_out, fn, width;
    longint unsigned number;
    logic [63:0] element;
    logic compares, keeps_bits;
    computed = computed_type();
    klass = lane_class(computed);
    fn = int'(instruction.word[0][23:16]);
    compares = kind == BINARY && lane_is_comparison(fn) != 0;
    klass_out = compares ? CLASS_UNSIGNED : klass;
    if (kind == ACCUMULATE && !instruction.word[0][24] && (!runs || int'(running_class) != klass))
      $fatal(1, "class changes: queue %0d accumulates without a first of this class, cycle %0d", queue,
             now - longint'(superlane));
    // A copy between equal types changes no bit.
    keeps_bits = kind == COPY && int'(operands[0][15:12]) == KIND_STREAM && operands[0][11:7] == to.dtype;
    for (int lane = 0; lane < LANES; lane++) begin
      case (kind)
        COPY: number = number_of(operands[0], lane, klass);
        UNARY: number = lane_unary(klass, fn, number_of(operands[0], lane, klass), int'(computed == DTYPE_BOOL));
        BINARY:
        if (compares)
          number = longint'(lane_compare(klass, fn, number_of(operands[0], lane, klass), number_of(operands[1], lane, klass)));
        else
          number = lane_binary(
              klass, fn, number_of(operands[0], lane, klass), number_of(operands[1], lane, klass), lane_bits(computed));
        SELECT:
        if (number_of(operands[0], lane, CLASS_UNSIGNED) != 0) number = number_of(operands[1], lane, klass);
        else number = number_of(operands[2], lane, klass);
        default: begin
          number = number_of(operands[0], lane, klass);
          if (!instruction.word[0][24])
            number = lane_combine(klass, fn, running[lane], number);
          running[lane] <= number;
        end
      endcase
      element = keeps_bits ? bits_of(operands[0], lane) : lane_encode(klass_out, number, int'(to.dtype));
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
    if (instruction.valid) check_own(queue, instruction, works);
    if (works) begin
      if (kind > ACCUMULATE) $fatal(1, "malformed: operation of queue %0d, cycle %0d", queue, now - longint'(superlane));
      for (int o = 0; o < 3; o++) if (o < count) check_operand(operands[o]);
      if (int'(to.kind) != KIND_NONE) begin
        check_type(int'(to.dtype));
        check_exists(queue, to, bytes_of(int'(to.dtype)));
        for (int i = 0; i < 8; i++) begin
          results[1].drives[i] <= i < bytes_of(int'(to.dtype));
          results[1].places[i] <= place_of(to, i);
        end
      end
      compute();
    end
  end
endmodule
