// One superlane's part of a shifter of the switch unit. Its lanes go to all superlanes, and those of all superlanes are there
// when the result is due.

module shifter
  import lpu_pkg::*;
#(
    parameter int SUPERLANES = 1,
    parameter int LANES = 4,
    parameter int STREAMS = 8,
    parameter int LATENCY = 1,
    localparam int L = SUPERLANES * LANES
) (
    input logic clk,
    input int unsigned queue,
    input int unsigned superlane,
    input longint unsigned now,
    input dispatch_t instruction,
    input logic [2*STREAMS-1:0] valid,
    input logic [2*STREAMS-1:0][8*LANES-1:0] data,
    output logic [2*STREAMS-1:0] taken,
    // The superlane's lanes of the operand in this cycle, and all lanes of the operand of LATENCY cycles ago.
    output logic [8*LANES-1:0] part,
    input logic [L-1:0][7:0] whole,
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
    logic rotates;
    logic [15:0] first;
    logic [15:0] beyond;
    logic signed [15:0] by;
    logic [5:0] place;
    logic [W-1:0] under;
  } shift_t;
  shift_t shift, shifts[1:LATENCY];

  logic works;
  operand_t from, under, to;
  assign works = instruction.valid && opcode_of(instruction.word[0]) == OP_SHIFT;
  assign from = instruction.word[1][15:0];
  assign under = instruction.word[1][31:16];
  assign to = instruction.word[3][31:16];
  assign part = data[place_of(from, 0)];

  always_comb begin
    taken = '0;
    if (works) taken = taken_by(from, 1) | taken_by(under, 1);
    shift.valid = works;
    shift.rotates = instruction.word[0][8];
    shift.first = instruction.word[2][15:0];
    shift.beyond = instruction.word[2][31:16];
    shift.by = instruction.word[3][15:0];
    shift.place = place_of(to, 0);
    shift.under = '0;
    if (int'(under.kind) != KIND_NONE) shift.under = data[place_of(under, 0)];
  end

  // A lane of the result.
  function automatic logic [7:0] lane_of(
      input int at, input int first, input int beyond, input int by, input logic rotates, input logic [7:0] under,
      input logic [L-1:0][7:0] whole);
    /*verilator no_inline_task*/
    int source;
    source = at - by;
    if (rotates) source = source % L;
    if (rotates && source < 0) source = source + L;
    lane_of = '0;
    if (source >= 0 && source < L) lane_of = whole[source];
    if (at < first || at >= beyond) lane_of = under;
  endfunction

  shift_t due;
  assign due = shifts[LATENCY];
  always_comb begin
    for (int lane = 0; lane < LANES; lane++)
      vector[8*lane+:8] = lane_of(
          int'(superlane) * LANES + lane, int'(due.first), int'(due.beyond), int'(due.by), due.rotates,
          due.under[8*lane+:8], whole);
  end
  assign drive = due.valid;
  assign place = due.place;

  always_comb begin
    busy = instruction.valid;
    for (int age = 1; age < LATENCY; age++) busy = busy || shifts[age].valid;
  end

  initial for (int age = 1; age <= LATENCY; age++) shifts[age] = '0;

  always_ff @(posedge clk) begin
    shifts[1] <= shift;
    for (int age = 2; age <= LATENCY; age++) shifts[age] <= shifts[age-1];
    if (instruction.valid) check_own(queue, cycle, instruction.word[0], works);
    if (works) begin
      check_read(queue, cycle, valid, from, 1);
      if (int'(under.kind) != KIND_NONE) check_read(queue, cycle, valid, under, 1);
      check_exists(queue, cycle, to, 1);
    end
  end
endmodule
