// One superlane's part of a plane of the matrix unit: the weights of its lanes for all columns, and the accumulators of its
// own columns.
//
// A row meets the weights of a superlane in the cycle in which its instruction comes there; the sums over the superlanes so far
// go north with it, a superlane in a cycle. Those of all superlanes come back to each superlane's columns by the time of the
// accumulate.

module plane
  import lpu_pkg::*;
#(
    parameter int SUPERLANES = 1,
    parameter int LANES = 4,
    parameter int STREAMS = 8,
    parameter int LOAD_STREAMS = 1,
    parameter int ACCUMULATORS = 1,
    parameter int LATENCY = 1,
    localparam int L = SUPERLANES * LANES
) (
    input logic clk,
    input logic dumping,
    // The plane's number among those of the hemisphere, and of all; its first queue.
    input int unsigned number,
    input int unsigned global_number,
    input int unsigned queue,
    input int unsigned superlane,
    input longint unsigned now,
    input dispatch_t load,
    input dispatch_t multiply,
    input dispatch_t accumulate,
    input logic [2*STREAMS-1:0] valid,
    input logic [2*STREAMS-1:0][8*LANES-1:0] data,
    output logic [2*STREAMS-1:0] taken,
    // Weights in use in this cycle, by column and lane, and those of the next plane: high bytes of halves.
    output logic [L-1:0][LANES-1:0][7:0] weights,
    input logic [L-1:0][LANES-1:0][7:0] next_weights,
    input logic next_multiplies,
    // Sums of all columns from the south and to the north, a cycle later.
    input logic [L-1:0][31:0] south,
    output logic [L-1:0][31:0] north,
    // Sums of the superlane's own columns, of the row whose multiply was LATENCY cycles ago.
    input logic [LANES-1:0][31:0] sums,
    output logic [3:0] drives,
    output logic [3:0][5:0] places,
    output logic [3:0][8*LANES-1:0] vectors,
    output logic busy
);
  /*verilator no_inline_module*/
  `include "float.svh"
  `include "half.svh"
  `include "streams.svh"

  logic [L-1:0][LANES-1:0][7:0] waiting, active;
  logic [LANES-1:0][31:0] accumulators[ACCUMULATORS];

  // Rows in flight, and which are halves; number i is i cycles old.
  logic [LATENCY:1] rows = '0;
  logic [LATENCY:1] floats = '0;

  logic loads, installs, multiplies, accumulates, halves;
  operand_t columns_from, row_from, to;
  assign loads = load.valid && opcode_of(load.word[0]) == OP_LOAD;
  assign installs = load.valid && opcode_of(load.word[0]) == OP_INSTALL;
  assign multiplies = multiply.valid && opcode_of(multiply.word[0]) == OP_MULTIPLY;
  assign accumulates = accumulate.valid && opcode_of(accumulate.word[0]) == OP_ACCUMULATE;
  assign halves = multiply.word[0][8];
  assign columns_from = load.word[1][15:0];
  assign row_from = multiply.word[1][15:0];
  assign to = accumulate.word[2][15:0];

  // Weights that are installed in this cycle are in use in it.
  assign weights = installs ? waiting : active;

  always_comb begin
    taken = '0;
    if (loads) taken = taken_by(columns_from, LOAD_STREAMS);
    if (multiplies) taken = taken | taken_by(row_from, halves ? 2 : 1);
  end

  // The sum of a column, with the products of this superlane's lanes added.
  function automatic logic [31:0] with_bytes(
      input logic [31:0] sum, input logic [LANES-1:0][7:0] row, input logic [LANES-1:0][7:0] column, input logic row_signed,
      input logic weights_signed);
    /*verilator no_inline_task*/
    logic signed [8:0] x, w;
    with_bytes = sum;
    for (int lane = 0; lane < LANES; lane++) begin
      x = {row_signed & row[lane][7], row[lane]};
      w = {weights_signed & column[lane][7], column[lane]};
      with_bytes = with_bytes + 32'(x) * 32'(w);
    end
  endfunction

  // The same for those lanes of halves that are in the set.
  function automatic logic [31:0] with_halves(
      input logic [31:0] sum, input logic [1:0][LANES-1:0][7:0] row, input logic [LANES-1:0][7:0] low,
      input logic [LANES-1:0][7:0] high, input logic [LANES-1:0] lanes);
    /*verilator no_inline_task*/
    with_halves = sum;
    for (int lane = 0; lane < LANES; lane++) begin
      if (lanes[lane])
        with_halves = add32(with_halves, product_of_halves({row[1][lane], row[0][lane]}, {high[lane], low[lane]}));
    end
  endfunction

  task automatic multiply_bytes();
    logic [L-1:0][31:0] sums_on;
    for (int column = 0; column < L; column++)
      sums_on[column] = with_bytes(
          south[column], data[place_of(row_from, 0)], weights[column], multiply.word[0][10], multiply.word[0][11]);
    north <= sums_on;
  endtask

  task automatic multiply_halves();
    logic [L-1:0][31:0] sums_on;
    logic [LANES-1:0] lanes;
    for (int lane = 0; lane < LANES; lane++)
      lanes[lane] = (int'(superlane) * LANES + lane >= L / 2) == multiply.word[0][9];
    for (int column = 0; column < L; column++)
      sums_on[column] = with_halves(
          south[column], {data[place_of(row_from, 1)], data[place_of(row_from, 0)]}, weights[column],
          next_weights[column], lanes);
    north <= sums_on;
  endtask

  task automatic take_sums();
    logic [31:0] word;
    for (int lane = 0; lane < LANES; lane++) begin
      word = sums[lane];
      if (accumulate.word[0][8]) begin
        if (floats[LATENCY]) word = add32(accumulators[accumulate.word[1]][lane], sums[lane]);
        else word = accumulators[accumulate.word[1]][lane] + sums[lane];
      end
      accumulators[accumulate.word[1]][lane] <= word;
      for (int i = 0; i < 4; i++) vectors[i][8*lane+:8] <= word[8*i+:8];
    end
  endtask

  assign busy = load.valid || multiply.valid || accumulate.valid || (rows & ~(LATENCY'(1) << (LATENCY - 1))) != '0;

  longint unsigned cycle;
  assign cycle = now - longint'(superlane);

  initial begin
    drives = '0;
    active = '0;
    waiting = '0;
    for (int row = 0; row < ACCUMULATORS; row++) accumulators[row] = '0;
  end

  always_ff @(posedge clk) begin
    if (load.valid) check_own(queue, cycle, load.word[0], loads || installs);
    if (loads) begin
      check_read(queue, cycle, valid, columns_from, LOAD_STREAMS);
      if (load.word[2] > L - LOAD_STREAMS)
        $fatal(1, "beyond the last column: queue %0d, cycle %0d", queue, cycle);
      for (int i = 0; i < LOAD_STREAMS; i++) waiting[load.word[2]+i] <= data[place_of(columns_from, i)];
    end
    if (installs) active <= waiting;

    rows <= LATENCY'({rows, multiplies});
    floats <= LATENCY'({floats, halves});
    if (multiply.valid) check_own(queue + 1, cycle, multiply.word[0], multiplies);
    if (multiplies && halves) begin
      check_read(queue + 1, cycle, valid, row_from, 2);
      if (number % 2 != 0)
        $fatal(1, "not this queue's: halves in queue %0d, of an odd plane, cycle %0d", queue + 1, cycle);
      if (next_multiplies)
        $fatal(1, "plane busy: queue %0d multiplies with weights that it lends, cycle %0d", queue + 4, cycle);
      multiply_halves();
    end
    if (multiplies && !halves) begin
      check_read(queue + 1, cycle, valid, row_from, 1);
      multiply_bytes();
    end

    drives <= '0;
    if (accumulate.valid) check_own(queue + 2, cycle, accumulate.word[0], accumulates);
    if (accumulates) begin
      if (!rows[LATENCY])
        $fatal(1, "nothing there: queue %0d takes sums that there are not, cycle %0d", queue + 2, cycle);
      if (accumulate.word[1] >= ACCUMULATORS)
        $fatal(1, "beyond the last row: queue %0d, cycle %0d", queue + 2, cycle);
      take_sums();
      if (int'(to.kind) != KIND_NONE) begin
        check_exists(queue + 2, cycle, to, 4);
        drives <= '1;
        for (int i = 0; i < 4; i++) places[i] <= place_of(to, i);
      end
    end
    if (dumping) dump_accumulators();
  end

  // The test bench reads the accumulators after the last cycle.
  task automatic dump_accumulators();
    for (int row = 0; row < ACCUMULATORS; row++)
      for (int lane = 0; lane < LANES; lane++)
        last_word((longint'(global_number) * ACCUMULATORS + longint'(row)) * L + longint'(superlane) * LANES + longint'(lane),
                  accumulators[row][lane]);
  endtask
endmodule
