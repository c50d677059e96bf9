// One superlane's part of a distributor of the switch unit, which picks lanes within the superlane.

module distributor
  import lpu_pkg::*;
#(
    parameter int LANES = 4,
    parameter int STREAMS = 8,
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
    output logic drive,
    output logic [5:0] place,
    output logic [8*LANES-1:0] vector,
    output logic busy
);
  /*verilator no_inline_module*/
  `include "streams.svh"

  // The cycle in superlane 0.
  longint unsigned cycle;
  assign cycle = now - longint'(superlane);

  typedef struct packed {
    logic valid;
    logic [5:0] place;
    logic [W-1:0] vector;
  } result_t;
  result_t result, results[1:LATENCY];

  logic works;
  operand_t from, to;
  logic [15:0] zeros;
  logic [15:0][3:0] map;
  logic [LANES-1:0][7:0] operand;
  assign works = instruction.valid && opcode_of(instruction.word[0]) == OP_DISTRIBUTE;
  assign from = instruction.word[1][15:0];
  assign to = instruction.word[1][31:16];
  assign zeros = instruction.word[0][23:8];
  assign map = instruction.word[3:2];
  assign operand = data[place_of(from, 0)];

  always_comb begin
    taken = '0;
    if (works) taken = taken_by(from, 1);
    result.valid = works;
    result.place = place_of(to, 0);
    result.vector = '0;
    for (int lane = 0; lane < LANES; lane++) begin
      if (!zeros[lane] && int'(map[lane]) < LANES) result.vector[8*lane+:8] = operand[map[lane]];
    end
  end

  assign drive = results[LATENCY].valid;
  assign place = results[LATENCY].place;
  assign vector = results[LATENCY].vector;

  always_comb begin
    busy = instruction.valid;
    for (int age = 1; age < LATENCY; age++) busy = busy || results[age].valid;
  end

  initial for (int age = 1; age <= LATENCY; age++) results[age] = '0;

  always_ff @(posedge clk) begin
    results[1] <= result;
    for (int age = 2; age <= LATENCY; age++) results[age] <= results[age-1];
    if (instruction.valid) check_own(queue, cycle, instruction.word[0], works);
    if (works) begin
      check_read(queue, cycle, valid, from, 1);
      check_exists(queue, cycle, to, 1);
    end
  end
endmodule
