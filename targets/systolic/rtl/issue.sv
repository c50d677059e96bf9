// When a unit starts the instruction at the head of its queue, and when that completes.
//
// It starts in the first cycle in which the unit is free and all that it waits for has completed. It keeps the unit until
// the unit says that this cycle is the last, and completes LATENCY cycles after that, or, if it is a pass whose sums stay in
// the array, DRAIN cycles later still.

module issue
  import machine_pkg::*;
#(
    parameter int LATENCY = 0,
    parameter int DRAIN = 1
) (
    input logic clk,
    input logic valid,
    input instruction_t head,
    // Instructions that have completed on each unit.
    input logic [UNITS-1:0][31:0] completed,
    // What else must hold.
    input logic allowed,
    // The unit's last cycle of the instruction; said in the second half of the cycle.
    input logic last,
    output logic start,
    output logic working,
    // What it works on.
    output instruction_t current,
    // Instructions of this unit that have completed.
    output logic [31:0] completions
);
  logic busy = 0;
  instruction_t held;
  logic ordered;
  logic done;

  always_comb begin
    ordered = 1'b1;
    for (int u = 0; u < UNITS; u++) ordered = ordered && completed[u] >= head.wanted[u];
  end
  assign start = valid && !busy && ordered && allowed;
  assign working = start || busy;
  assign current = busy ? held : head;

  logic stays, drained;
  assign stays = int'(current.opcode) == OP_OUTER;
  delay #(.WIDTH(1), .CYCLES(LATENCY)) pipeline (.clk(clk), .in(working && last && !stays), .out(done));
  delay #(.WIDTH(1), .CYCLES(LATENCY+DRAIN)) longer_pipeline (.clk(clk), .in(working && last && stays), .out(drained));

  initial completions = 0;

  always_ff @(posedge clk) begin
    busy <= working && !last;
    if (start) held <= head;
    completions <= completions + 32'(done) + 32'(drained);
  end
endmodule
