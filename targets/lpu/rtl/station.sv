// The streams at one position of one superlane: what comes in is read there, may be taken, and what goes on, or is driven
// there, is in the registers to the next positions with the next cycle.

module station
  import lpu_pkg::*;
#(
    parameter int STREAMS = 8,
    parameter int LANES = 4,
    // Vectors that the units at the position may drive in one cycle.
    parameter int PORTS = 1,
    localparam int N = 2 * STREAMS,
    localparam int W = 8 * LANES
) (
    input logic clk,
    input int unsigned position,
    input int unsigned superlane,
    input longint unsigned now,
    input logic [N-1:0] valid,
    input logic [N-1:0][W-1:0] data,
    input logic [N-1:0] taken,
    input logic [PORTS-1:0] drives,
    input logic [PORTS-1:0][5:0] places,
    input logic [PORTS-1:0][W-1:0] vectors,
    output logic [N-1:0] valid_on,
    output logic [N-1:0][W-1:0] data_on
);
  /*verilator no_inline_module*/

  logic [N-1:0] driven, twice, valid_next;
  logic [N-1:0][W-1:0] data_next;

  always_comb begin
    driven = '0;
    twice = '0;
    data_next = data;
    for (int port = 0; port < PORTS; port++) begin
      if (drives[port]) begin
        twice[places[port]] = driven[places[port]];
        driven[places[port]] = 1'b1;
        data_next[places[port]] = vectors[port];
      end
    end
    valid_next = (valid & ~taken) | driven;
  end

  initial valid_on = '0;

  always_ff @(posedge clk) begin
    valid_on <= valid_next;
    data_on <= data_next;
    if (twice != '0)
      $fatal(1, "collision: two drives onto streams %b, position %0d, cycle %0d", twice, position,
             now - longint'(superlane));
    if ((driven & valid & ~taken) != '0)
      $fatal(1, "collision: streams %b are driven, but carry vectors, position %0d, cycle %0d",
             driven & valid & ~taken, position, now - longint'(superlane));
  end
endmodule
