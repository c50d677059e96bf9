// One superlane's part of the switch unit of a hemisphere: shifters, distributors and transposers at one position.

module sxm
  import lpu_pkg::*;
#(
    parameter int SUPERLANES = 1,
    parameter int LANES = 4,
    parameter int STREAMS = 8,
    parameter int SHIFTERS = 1,
    parameter int DISTRIBUTORS = 1,
    parameter int TRANSPOSERS = 1,
    parameter int LATENCY = 1,
    localparam int N = 2 * STREAMS,
    localparam int W = 8 * LANES,
    localparam int UNITS = SHIFTERS + DISTRIBUTORS + TRANSPOSERS
) (
    input logic clk,
    input int unsigned queue,
    input int unsigned position,
    input int unsigned superlane,
    input longint unsigned now,
    input dispatch_t [UNITS-1:0] instructions,
    input logic [N-1:0] valid,
    input logic [N-1:0][W-1:0] data,
    // Of each shifter: this superlane's lanes, and those of all superlanes.
    output logic [SHIFTERS-1:0][W-1:0] parts,
    input logic [SHIFTERS-1:0][SUPERLANES*W-1:0] wholes,
    output logic [N-1:0] valid_on,
    output logic [N-1:0][W-1:0] data_on,
    output logic busy
);
  localparam int TRANSPOSED = SHIFTERS + DISTRIBUTORS;
  localparam int PORTS = TRANSPOSED + LANES * TRANSPOSERS;

  logic [UNITS-1:0] working;
  logic [UNITS-1:0][N-1:0] taken;
  logic [PORTS-1:0] drives;
  logic [PORTS-1:0][5:0] places;
  logic [PORTS-1:0][W-1:0] vectors;
  logic [N-1:0] taken_here;

  always_comb begin
    taken_here = '0;
    for (int i = 0; i < UNITS; i++) taken_here = taken_here | taken[i];
  end
  assign busy = working != '0;

  station #(
      .STREAMS(STREAMS), .LANES(LANES), .PORTS(PORTS)
  ) station (
      .clk(clk), .position(position), .superlane(superlane), .now(now), .valid(valid), .data(data), .taken(taken_here),
      .drives(drives), .places(places), .vectors(vectors), .valid_on(valid_on), .data_on(data_on)
  );

  generate
    for (genvar i = 0; i < SHIFTERS; i = i + 1) begin : shift
      shifter #(
          .SUPERLANES(SUPERLANES), .LANES(LANES), .STREAMS(STREAMS), .LATENCY(LATENCY)
      ) shifter (
          .clk(clk), .queue(queue + i), .superlane(superlane), .now(now), .instruction(instructions[i]), .valid(valid),
          .data(data), .taken(taken[i]), .part(parts[i]), .whole(wholes[i]), .drive(drives[i]), .place(places[i]),
          .vector(vectors[i]), .busy(working[i])
      );
    end
    for (genvar i = SHIFTERS; i < TRANSPOSED; i = i + 1) begin : distribute
      distributor #(
          .LANES(LANES), .STREAMS(STREAMS), .LATENCY(LATENCY)
      ) distributor (
          .clk(clk), .queue(queue + i), .superlane(superlane), .now(now), .instruction(instructions[i]), .valid(valid),
          .data(data), .taken(taken[i]), .drive(drives[i]), .place(places[i]), .vector(vectors[i]), .busy(working[i])
      );
    end
    for (genvar i = 0; i < TRANSPOSERS; i = i + 1) begin : transpose
      localparam int FIRST = TRANSPOSED + LANES * i;
      transposer #(
          .LANES(LANES), .STREAMS(STREAMS), .LATENCY(LATENCY)
      ) transposer (
          .clk(clk), .queue(queue + TRANSPOSED + i), .superlane(superlane), .now(now),
          .instruction(instructions[TRANSPOSED+i]), .valid(valid), .data(data), .taken(taken[TRANSPOSED+i]),
          .drives(drives[FIRST+:LANES]), .places(places[FIRST+:LANES]), .vectors(vectors[FIRST+:LANES]),
          .busy(working[TRANSPOSED+i])
      );
    end
  endgenerate
endmodule
