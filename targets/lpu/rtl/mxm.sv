// One superlane's part of the matrix unit of a hemisphere: its planes, at one position. A plane lends its weights to the plane
// before it.

module mxm
  import lpu_pkg::*;
#(
    parameter int SUPERLANES = 1,
    parameter int LANES = 4,
    parameter int STREAMS = 8,
    parameter int PLANES = 2,
    parameter int LOAD_STREAMS = 1,
    parameter int ACCUMULATORS = 1,
    parameter int LATENCY = 1,
    localparam int N = 2 * STREAMS,
    localparam int W = 8 * LANES,
    localparam int L = SUPERLANES * LANES
) (
    input logic clk,
    input logic dumping,
    // The number of the first plane among all, and that of the first queue.
    input int unsigned first_plane,
    input int unsigned queue,
    input int unsigned position,
    input int unsigned superlane,
    input longint unsigned now,
    input dispatch_t [3*PLANES-1:0] instructions,
    input logic [N-1:0] valid,
    input logic [N-1:0][W-1:0] data,
    // Of each plane: sums of all columns from the south and to the north, and all sums of the superlane's columns.
    input logic [PLANES-1:0][32*L-1:0] south,
    output logic [PLANES-1:0][32*L-1:0] north,
    input logic [PLANES-1:0][32*LANES-1:0] sums,
    output logic [N-1:0] valid_on,
    output logic [N-1:0][W-1:0] data_on,
    output logic busy
);
  logic [PLANES-1:0] working;
  logic [PLANES-1:0][N-1:0] taken;
  logic [4*PLANES-1:0] drives;
  logic [4*PLANES-1:0][5:0] places;
  logic [4*PLANES-1:0][W-1:0] vectors;
  logic [N-1:0] taken_here;
  // Nothing stands behind the last plane.
  wire [PLANES:0][8*L*LANES-1:0] weights;
  wire [PLANES:0] multiplies;
  assign weights[PLANES] = '0;
  assign multiplies[PLANES] = 1'b0;

  always_comb begin
    taken_here = '0;
    for (int i = 0; i < PLANES; i++) taken_here = taken_here | taken[i];
  end
  assign busy = working != '0;

  station #(
      .STREAMS(STREAMS), .LANES(LANES), .PORTS(4 * PLANES)
  ) station (
      .clk(clk), .position(position), .superlane(superlane), .now(now), .valid(valid), .data(data), .taken(taken_here),
      .drives(drives), .places(places), .vectors(vectors), .valid_on(valid_on), .data_on(data_on)
  );

  generate
    for (genvar i = 0; i < PLANES; i = i + 1) begin : each
      assign multiplies[i] = instructions[3*i+1].valid && opcode_of(instructions[3*i+1].word[0]) == OP_MULTIPLY;
      plane #(
          .SUPERLANES(SUPERLANES), .LANES(LANES), .STREAMS(STREAMS), .LOAD_STREAMS(LOAD_STREAMS),
          .ACCUMULATORS(ACCUMULATORS), .LATENCY(LATENCY)
      ) plane (
          .clk(clk), .dumping(dumping), .number(i), .global_number(first_plane + i), .queue(queue + 3 * i),
          .superlane(superlane), .now(now),
          .load(instructions[3*i]), .multiply(instructions[3*i+1]), .accumulate(instructions[3*i+2]),
          .valid(valid), .data(data), .taken(taken[i]),
          .weights(weights[i]), .next_weights(weights[i+1]), .next_multiplies(multiplies[i+1]),
          .south(south[i]), .north(north[i]), .sums(sums[i]),
          .drives(drives[4*i+:4]), .places(places[4*i+:4]), .vectors(vectors[4*i+:4]), .busy(working[i])
      );
    end
  endgenerate
endmodule
