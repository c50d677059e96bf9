// The chip: queues, and superlanes of units from west to east, through which instructions go north, one superlane in a cycle.
//
// `running` is low for one edge before cycle 0, at which memory is loaded. `now` counts cycles from there on. `dumping` has
// memory and accumulators handed out.

module lpu
  import lpu_pkg::*;
#(
    parameter int SUPERLANES = 2,
    parameter int LANES = 4,
    parameter int STREAMS = 16,
    parameter int NOTIFY_LATENCY = 3,
    parameter int SLICES = 4,
    parameter int BANKS = 2,
    parameter int WORDS = 64,
    parameter int MEM_LATENCY = 2,
    parameter int ALUS = 4,
    parameter int VXM_LATENCY = 2,
    parameter int PLANES = 2,
    parameter int LOAD_STREAMS = 4,
    parameter int ACCUMULATORS = 16,
    parameter int MXM_LATENCY = 5,
    parameter int SHIFTERS = 4,
    parameter int DISTRIBUTORS = 2,
    parameter int TRANSPOSERS = 1,
    parameter int SXM_LATENCY = 3
) (
    input logic clk,
    input logic running,
    input logic dumping,
    output int unsigned queues,
    output longint unsigned now,
    // The last cycle so far in which a superlane did something, plus one; and whether it will stay that.
    output longint unsigned cycles,
    output logic done
);
  localparam int N = 2 * STREAMS;
  localparam int W = 8 * LANES;
  localparam int L = SUPERLANES * LANES;
  localparam int UNITS = SHIFTERS + DISTRIBUTORS + TRANSPOSERS;
  localparam int POSITIONS = 2 * SLICES + 5;
  // The first queue of each kind of unit.
  localparam int VXM_QUEUE = 2 * SLICES;
  localparam int MXM_QUEUE = VXM_QUEUE + ALUS;
  localparam int SXM_QUEUE = MXM_QUEUE + 6 * PLANES;
  localparam int QUEUES = SXM_QUEUE + 2 * UNITS;
  assign queues = QUEUES;

  // Instructions, by superlane.
  dispatch_t [QUEUES-1:0] instructions[SUPERLANES];
  dispatch_t [QUEUES-1:0] dispatched;
  logic [QUEUES-1:0] ended, notifies;
  logic notified;

  genvar q, k, x, s, p;
  assign instructions[0] = dispatched;
  generate
    for (q = 0; q < QUEUES; q = q + 1) begin : queue_of
      queue #(.NOTIFY_LATENCY(NOTIFY_LATENCY)) queue (
          .clk(clk), .running(running), .number(q), .now(now), .notified(notified), .dispatched(dispatched[q]),
          .ended(ended[q])
      );
      assign notifies[q] = dispatched[q].valid && opcode_of(dispatched[q].word[0]) == OP_NOTIFY;
    end
    for (k = 1; k < SUPERLANES; k = k + 1) begin : north
      dispatch_t [QUEUES-1:0] held = '0;
      always_ff @(posedge clk) held <= instructions[k-1];
      assign instructions[k] = held;
    end
  endgenerate
  delay #(.WIDTH(1), .CYCLES(NOTIFY_LATENCY - 1)) until_notified (.clk(clk), .in(notifies != '0), .out(notified));

  // What leaves each position, by superlane: eastward streams, then westward ones.
  wire [N-1:0] valid_on[SUPERLANES][POSITIONS];
  wire [N-1:0][W-1:0] data_on[SUPERLANES][POSITIONS];
  wire [POSITIONS-1:0] busy[SUPERLANES];

  // Sums of each plane: partial ones on their way north, and all on their way to the superlane that keeps them.
  wire [PLANES-1:0][32*L-1:0] partial[2][SUPERLANES+1];
  wire [PLANES-1:0][32*LANES-1:0] sums[2][SUPERLANES];
  // Lanes of each shifter's operand, and all of them on their way north.
  wire [SHIFTERS-1:0][W-1:0] parts[2][SUPERLANES];
  wire [SHIFTERS-1:0][SUPERLANES*W-1:0] wholes[2][SUPERLANES];

  generate
    for (s = 0; s < 2; s = s + 1) begin : hemisphere
      assign partial[s][0] = '0;
      for (p = 0; p < PLANES; p = p + 1) begin : plane
        for (k = 0; k < SUPERLANES; k = k + 1) begin : back
          // The sums are complete in the cycle SUPERLANES after the row was dispatched.
          delay #(.WIDTH(32 * LANES), .CYCLES(MXM_LATENCY - SUPERLANES + k)) south (
              .clk(clk), .in(partial[s][SUPERLANES][p][32*LANES*k+:32*LANES]), .out(sums[s][k][p])
          );
        end
      end
      for (p = 0; p < SHIFTERS; p = p + 1) begin : shift
        for (k = 0; k < SUPERLANES; k = k + 1) begin : gather
          delay #(.WIDTH(W), .CYCLES(SXM_LATENCY - k)) until_all_are_there (
              .clk(clk), .in(parts[s][k][p]), .out(wholes[s][0][p][W*k+:W])
          );
        end
        for (k = 1; k < SUPERLANES; k = k + 1) begin : north
          delay #(.WIDTH(SUPERLANES * W), .CYCLES(1)) next (
              .clk(clk), .in(wholes[s][k-1][p]), .out(wholes[s][k][p])
          );
        end
      end
    end

    for (k = 0; k < SUPERLANES; k = k + 1) begin : superlane
      for (x = 0; x < POSITIONS; x = x + 1) begin : site
        localparam int SIDE = x < SLICES + 2 ? 0 : 1;
        // What comes in from the west, and from the east; nothing from beyond the chip.
        wire [N-1:0] valid;
        wire [N-1:0][W-1:0] data;
        if (x > 0) begin : west
          assign valid[STREAMS-1:0] = valid_on[k][x-1][STREAMS-1:0];
          assign data[STREAMS-1:0] = data_on[k][x-1][STREAMS-1:0];
        end else begin : west_end
          assign valid[STREAMS-1:0] = '0;
          assign data[STREAMS-1:0] = '0;
        end
        if (x < POSITIONS - 1) begin : east
          assign valid[N-1:STREAMS] = valid_on[k][x+1][N-1:STREAMS];
          assign data[N-1:STREAMS] = data_on[k][x+1][N-1:STREAMS];
        end else begin : east_end
          assign valid[N-1:STREAMS] = '0;
          assign data[N-1:STREAMS] = '0;
        end

        if (x == 0 || x == POSITIONS - 1) begin : is_mxm
          localparam int QUEUE = MXM_QUEUE + SIDE * 3 * PLANES;
          mxm #(
              .SUPERLANES(SUPERLANES), .LANES(LANES), .STREAMS(STREAMS), .PLANES(PLANES), .LOAD_STREAMS(LOAD_STREAMS),
              .ACCUMULATORS(ACCUMULATORS), .LATENCY(MXM_LATENCY)
          ) mxm (
              .clk(clk), .dumping(dumping), .first_plane(SIDE * PLANES), .queue(QUEUE), .position(x), .superlane(k), .now(now),
              .instructions(instructions[k][QUEUE+:3*PLANES]), .valid(valid), .data(data),
              .south(partial[SIDE][k]), .north(partial[SIDE][k+1]), .sums(sums[SIDE][k]),
              .valid_on(valid_on[k][x]), .data_on(data_on[k][x]), .busy(busy[k][x])
          );
        end else if (x == 1 || x == POSITIONS - 2) begin : is_sxm
          localparam int QUEUE = SXM_QUEUE + SIDE * UNITS;
          sxm #(
              .SUPERLANES(SUPERLANES), .LANES(LANES), .STREAMS(STREAMS), .SHIFTERS(SHIFTERS),
              .DISTRIBUTORS(DISTRIBUTORS), .TRANSPOSERS(TRANSPOSERS), .LATENCY(SXM_LATENCY)
          ) sxm (
              .clk(clk), .queue(QUEUE), .position(x), .superlane(k), .now(now),
              .instructions(instructions[k][QUEUE+:UNITS]), .valid(valid), .data(data),
              .parts(parts[SIDE][k]), .wholes(wholes[SIDE][k]),
              .valid_on(valid_on[k][x]), .data_on(data_on[k][x]), .busy(busy[k][x])
          );
        end else if (x == SLICES + 2) begin : is_vxm
          vxm #(
              .LANES(LANES), .STREAMS(STREAMS), .ALUS(ALUS), .LATENCY(VXM_LATENCY)
          ) vxm (
              .clk(clk), .queue(VXM_QUEUE), .position(x), .superlane(k), .now(now),
              .instructions(instructions[k][VXM_QUEUE+:ALUS]), .valid(valid), .data(data),
              .valid_on(valid_on[k][x]), .data_on(data_on[k][x]), .busy(busy[k][x])
          );
        end else begin : is_mem
          localparam int QUEUE = x - 2 - SIDE;
          mem #(
              .SUPERLANES(SUPERLANES), .LANES(LANES), .STREAMS(STREAMS), .BANKS(BANKS), .WORDS(WORDS),
              .LATENCY(MEM_LATENCY)
          ) mem (
              .clk(clk), .loading(!running), .dumping(dumping), .queue(QUEUE), .position(x), .superlane(k), .now(now),
              .instruction(instructions[k][QUEUE]), .valid(valid), .data(data),
              .valid_on(valid_on[k][x]), .data_on(data_on[k][x]), .busy(busy[k][x])
          );
        end
      end
    end
  endgenerate

  // What was dispatched in a cycle may drive something in the one after the last in which it counts as work, so that one has
  // to pass too.
  logic [SUPERLANES-1:0] at_work;
  always_comb for (int i = 0; i < SUPERLANES; i++) at_work[i] = busy[i] != '0;
  assign done = ended == '1 && now > cycles;

  initial begin
    now = 0;
    cycles = 0;
  end

  always_ff @(posedge clk) begin
    now <= running ? now + 1 : 0;
    if (running && at_work != '0) cycles <= now + 1;
    for (int i = 0; i < QUEUES; i++) if (running && dispatched[i].valid) note_dispatch(i, now);
  end
endmodule
