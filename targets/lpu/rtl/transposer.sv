// One superlane's part of a transposer of the switch unit: lanes and streams change places.

module transposer
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
    output logic [LANES-1:0] drives,
    output logic [LANES-1:0][5:0] places,
    output logic [LANES-1:0][8*LANES-1:0] vectors,
    output logic busy
);
  /*verilator no_inline_module*/
  `include "streams.svh"

  // The cycle in superlane 0.
  longint unsigned cycle;
  assign cycle = now - longint'(superlane);

  typedef struct packed {
    logic valid;
    operand_t to;
    logic [LANES-1:0][W-1:0] vectors;
  } result_t;
  result_t result, results[1:LATENCY];

  logic works;
  operand_t from, to;
  assign works = instruction.valid && opcode_of(instruction.word[0]) == OP_TRANSPOSE;
  assign from = instruction.word[1][15:0];
  assign to = instruction.word[1][31:16];

  always_comb begin
    taken = '0;
    if (works) taken = taken_by(from, LANES);
    result.valid = works;
    result.to = to;
    for (int j = 0; j < LANES; j++)
      for (int i = 0; i < LANES; i++) result.vectors[j][8*i+:8] = data[place_of(from, i)][8*j+:8];
  end

  always_comb begin
    for (int j = 0; j < LANES; j++) begin
      drives[j] = results[LATENCY].valid;
      places[j] = place_of(results[LATENCY].to, j);
      vectors[j] = results[LATENCY].vectors[j];
    end
  end

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
      check_read(queue, cycle, valid, from, LANES);
      check_exists(queue, cycle, to, LANES);
    end
  end
endmodule
