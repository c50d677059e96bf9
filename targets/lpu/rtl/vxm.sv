// One superlane's part of the vector unit: its ALUs, which see each other's results, at one position.

module vxm
  import lpu_pkg::*;
#(
    parameter int LANES = 4,
    parameter int STREAMS = 8,
    parameter int ALUS = 1,
    parameter int LATENCY = 1,
    localparam int N = 2 * STREAMS,
    localparam int W = 8 * LANES
) (
    input logic clk,
    input int unsigned queue,
    input int unsigned position,
    input int unsigned superlane,
    input longint unsigned now,
    input dispatch_t [ALUS-1:0] instructions,
    input logic [N-1:0] valid,
    input logic [N-1:0][W-1:0] data,
    output logic [N-1:0] valid_on,
    output logic [N-1:0][W-1:0] data_on,
    output logic busy
);
  logic [ALUS-1:0] ready, working;
  logic [ALUS-1:0][1:0] ready_class;
  logic [ALUS-1:0][LANES-1:0][63:0] ready_numbers;
  logic [ALUS-1:0][N-1:0] taken;
  logic [8*ALUS-1:0] drives;
  logic [8*ALUS-1:0][5:0] places;
  logic [8*ALUS-1:0][W-1:0] vectors;
  logic [N-1:0] taken_here;

  always_comb begin
    taken_here = '0;
    for (int i = 0; i < ALUS; i++) taken_here = taken_here | taken[i];
  end
  assign busy = working != '0;

  station #(
      .STREAMS(STREAMS), .LANES(LANES), .PORTS(8 * ALUS)
  ) station (
      .clk(clk), .position(position), .superlane(superlane), .now(now), .valid(valid), .data(data), .taken(taken_here),
      .drives(drives), .places(places), .vectors(vectors), .valid_on(valid_on), .data_on(data_on)
  );

  generate
    for (genvar i = 0; i < ALUS; i = i + 1) begin : each
      alu #(
          .LANES(LANES), .STREAMS(STREAMS), .ALUS(ALUS), .LATENCY(LATENCY)
      ) alu (
          .clk(clk), .queue(queue + i), .superlane(superlane), .now(now), .instruction(instructions[i]),
          .valid(valid), .data(data), .taken(taken[i]),
          .ready(ready), .ready_class(ready_class), .ready_numbers(ready_numbers),
          .result(ready[i]), .result_class(ready_class[i]), .result_numbers(ready_numbers[i]),
          .drives(drives[8*i+:8]), .places(places[8*i+:8]), .vectors(vectors[8*i+:8]), .busy(working[i])
      );
    end
  endgenerate
endmodule
