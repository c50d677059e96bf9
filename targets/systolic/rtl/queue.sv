// A unit's queue. A place is taken from the cycle in which an instruction is handed out until that in which it starts.

module queue
  import machine_pkg::*;
#(
    parameter int DEPTH = 4
) (
    input logic clk,
    input logic push,
    input instruction_t pushed,
    // The instruction at the head starts in this cycle.
    input logic pop,
    output logic free,
    output logic valid,
    output instruction_t head
);
  instruction_t places[DEPTH];
  int first = 0;
  int taken = 0;

  assign free = taken < DEPTH || pop;
  assign valid = taken > 0;
  assign head = places[first];

  always_ff @(posedge clk) begin
    if (push) places[(first+taken)%DEPTH] <= pushed;
    if (pop) first <= (first + 1) % DEPTH;
    taken <= taken + int'(push) - int'(pop);
  end
endmodule
