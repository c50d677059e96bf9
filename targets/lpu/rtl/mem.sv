// One superlane's part of a slice of memory, at its position.

module mem
  import lpu_pkg::*;
#(
    parameter int SUPERLANES = 1,
    parameter int LANES = 4,
    parameter int STREAMS = 8,
    parameter int BANKS = 1,
    parameter int WORDS = 16,
    parameter int LATENCY = 1,
    localparam int N = 2 * STREAMS,
    localparam int W = 8 * LANES
) (
    input logic clk,
    input logic loading,
    input logic dumping,
    input int unsigned queue,
    input int unsigned position,
    input int unsigned superlane,
    input longint unsigned now,
    input dispatch_t instruction,
    input logic [N-1:0] valid,
    input logic [N-1:0][W-1:0] data,
    output logic [N-1:0] valid_on,
    output logic [N-1:0][W-1:0] data_on,
    output logic busy
);
  logic [N-1:0] taken;
  logic drive;
  logic [5:0] place;
  logic [W-1:0] vector;

  station #(
      .STREAMS(STREAMS), .LANES(LANES), .PORTS(1)
  ) station (
      .clk(clk), .position(position), .superlane(superlane), .now(now), .valid(valid), .data(data), .taken(taken),
      .drives(drive), .places(place), .vectors(vector), .valid_on(valid_on), .data_on(data_on)
  );
  slice #(
      .SUPERLANES(SUPERLANES), .LANES(LANES), .STREAMS(STREAMS), .BANKS(BANKS), .WORDS(WORDS), .LATENCY(LATENCY)
  ) slice (
      .clk(clk), .loading(loading), .dumping(dumping), .queue(queue), .superlane(superlane), .now(now),
      .instruction(instruction), .valid(valid), .data(data), .taken(taken), .drive(drive), .place(place),
      .vector(vector), .busy(busy)
  );
endmodule
