// The machine: a sequencer, five units with their queues, and the memories that they share.
//
// `now` counts cycles from the first in which an instruction can be handed out. Registers change at the rising edge; the
// units read memories and do a cycle's work at the falling edge in the middle of it; what they write is visible with the
// next cycle.

module systolic
  import machine_pkg::*;
#(
    // Rows of all arrays, and of one of the blocks that they are divided into.
    parameter int ROWS = 4,
    parameter int BLOCK_ROWS = 4,
    parameter int COLUMNS = 4,
    parameter int SCRATCHPAD_BYTES = 65536,
    parameter int BANKS = 1,
    parameter int READ_PORTS = UNITS,
    parameter int WRITE_PORTS = UNITS,
    parameter int ACCUMULATOR_ROWS = 16,
    parameter int LANES = 8,
    parameter int SPECIAL_LANES = 2,
    parameter int SUBLANES = 1,
    parameter int STRIDED_LANES = 4,
    parameter int VECTOR_LATENCY = 3,
    parameter int READ_BYTES_PER_CYCLE = 16,
    parameter int WRITE_BYTES_PER_CYCLE = 8,
    parameter int BURST_BYTES = 16,
    parameter int DRAM_LATENCY = 10,
    parameter int QUEUE_DEPTH = 4,
    parameter bit OVERLAP = 1
) (
    input logic clk,
    input logic running,
    output logic done,
    output longint unsigned now,
    // Which units start an instruction in this cycle.
    output logic [UNITS-1:0] started
);
  memory #(
      .SCRATCHPAD_BYTES(SCRATCHPAD_BYTES), .BANKS(BANKS), .READ_PORTS(READ_PORTS), .WRITE_PORTS(WRITE_PORTS),
      .ACCUMULATOR_BYTES(ACCUMULATOR_ROWS * COLUMNS * 4)
  ) memory (
      .now(now)
  );

  logic [UNITS-1:0] free, pushed, valid, start, working, last, allowed;
  logic [UNITS-1:0][31:0] completed;
  instruction_t fetched;
  instruction_t head[UNITS];
  instruction_t current[UNITS];
  logic handed_out;

  sequencer #(.OVERLAP(OVERLAP)) sequencer (
      .clk(clk), .running(running), .free(free), .valid(pushed), .instruction(fetched), .finished(handed_out)
  );

  genvar u;
  generate
    for (u = 0; u < UNITS; u = u + 1) begin : unit
      localparam int CYCLES = u == LOAD || u == STORE ? DRAM_LATENCY
        : u == PRELOAD ? 0 : u == ARRAY ? ROWS + COLUMNS - 2 : VECTOR_LATENCY;
      queue #(.DEPTH(QUEUE_DEPTH)) queue (
          .clk(clk), .push(pushed[u]), .pushed(fetched), .pop(start[u]), .free(free[u]), .valid(valid[u]),
          .head(head[u])
      );
      // Sums that stay in the array have moved out of it so much later.
      issue #(.LATENCY(CYCLES), .DRAIN(ROWS)) issue (
          .clk(clk), .valid(valid[u]), .head(head[u]), .completed(completed), .allowed(allowed[u]), .last(last[u]),
          .start(start[u]), .working(working[u]), .current(current[u]), .completions(completed[u])
      );
    end
  endgenerate

  // Weights wait in one set of registers: a preload follows the pass that took the weights before, and that pass follows
  // its preload.
  int unsigned preloads = 0;
  int unsigned switches = 0;
  logic switching, multiplies;
  assign multiplies = int'(head[ARRAY].opcode) == OP_MULTIPLY;
  assign switching = multiplies && head[ARRAY].words[1][10];
  // Sums leave the array one after the other: a pass of rows follows sums that stayed when these are out.
  int unsigned to_drain = 0;
  always_ff @(posedge clk) begin
    if (working[ARRAY] && last[ARRAY] && int'(current[ARRAY].opcode) == OP_OUTER) to_drain <= ROWS;
    else if (to_drain > 0) to_drain <= to_drain - 1;
  end
  always_comb begin
    allowed = '1;
    allowed[ARRAY] = (!switching || completed[PRELOAD] > switches) && (!multiplies || to_drain == 0);
    allowed[PRELOAD] = preloads <= switches + 32'(start[ARRAY] && switching);
  end
  always_ff @(posedge clk) begin
    preloads <= preloads + 32'(start[PRELOAD]);
    switches <= switches + 32'(start[ARRAY] && switching);
  end

  dma #(
      .STORES(0), .BURST_BYTES(BURST_BYTES), .BYTES_PER_CYCLE(READ_BYTES_PER_CYCLE), .LATENCY(DRAM_LATENCY)
  ) load (
      .clk(clk), .now(now), .start(start[LOAD]), .working(working[LOAD]), .instruction(current[LOAD]),
      .last(last[LOAD])
  );
  dma #(
      .STORES(1), .BURST_BYTES(BURST_BYTES), .BYTES_PER_CYCLE(WRITE_BYTES_PER_CYCLE), .LATENCY(DRAM_LATENCY)
  ) store (
      .clk(clk), .now(now), .start(start[STORE]), .working(working[STORE]), .instruction(current[STORE]),
      .last(last[STORE])
  );
  feed #(.ROWS(ROWS), .COLUMNS(COLUMNS), .BLOCK_ROWS(BLOCK_ROWS)) feed (
      .clk(clk),
      .preload_start(start[PRELOAD]), .preload_working(working[PRELOAD]), .preload(current[PRELOAD]),
      .preload_last(last[PRELOAD]),
      .pass_start(start[ARRAY]), .pass_working(working[ARRAY]), .pass(current[ARRAY]), .pass_last(last[ARRAY])
  );
  vector #(
      .LANES(LANES), .SPECIAL_LANES(SPECIAL_LANES), .SUBLANES(SUBLANES), .STRIDED_LANES(STRIDED_LANES), .LATENCY(VECTOR_LATENCY)
  ) vector (
      .clk(clk), .now(now), .start(start[VECTOR]), .working(working[VECTOR]), .instruction(current[VECTOR]),
      .last(last[VECTOR])
  );

  // All is done once everything that was handed out has completed.
  int unsigned handed[UNITS];
  logic complete;
  initial for (int i = 0; i < UNITS; i++) handed[i] = 0;
  always_comb begin
    complete = handed_out;
    for (int i = 0; i < UNITS; i++) complete = complete && completed[i] == handed[i];
  end
  assign done = complete;
  assign started = start;
  always_ff @(posedge clk) begin
    now <= running ? now + 1 : 0;
    for (int i = 0; i < UNITS; i++) handed[i] <= handed[i] + 32'(pushed[i]);
  end
endmodule
