// What stands between the scratchpad and the array: the feeders of weights and of rows of A, and the accumulators behind it.
//
// A row enters the array in every cycle, one for each group that the rows of the array are used as. Elements are brought
// into the form of the cells on the way: floats are rounded to bfloat16, integers lose their zero point and have 9 bits
// then.

module feed
  import lanes_pkg::*;
  import machine_pkg::*;
#(
    parameter int ROWS = 4,
    parameter int COLUMNS = 4,
    parameter int BLOCK_ROWS = 4
) (
    input logic clk,
    input logic preload_start,
    input logic preload_working,
    input instruction_t preload,
    output logic preload_last,
    input logic pass_start,
    input logic pass_working,
    input instruction_t pass,
    output logic pass_last
);
  `include "float.svh"

  localparam int ROW_BITS = 16;
  localparam int LATENCY = ROWS + COLUMNS - 2;
  localparam int BLOCKS = ROWS / BLOCK_ROWS;

  logic weight_valid = 0;
  logic [ROW_BITS-1:0] weight_row;
  logic [BLOCKS*COLUMNS*16-1:0] weights;
  logic valid = 0;
  logic is_float;
  logic switching;
  logic [BLOCKS-1:0] begins;
  logic [ROWS*16-1:0] a;
  logic [BLOCKS*COLUMNS*32-1:0] sums;
  logic stays = 0;
  logic first;
  logic last = 0;
  logic [COLUMNS*16-1:0] b;
  logic [COLUMNS*32-1:0] drained;

  systolic_array #(.ROWS(ROWS), .COLUMNS(COLUMNS), .BLOCK_ROWS(BLOCK_ROWS), .ROW_BITS(ROW_BITS)) grid (
      .clk(clk), .valid(valid), .is_float(is_float), .switch_weights(switching), .begins(begins), .a(a),
      .stays(stays), .first(first), .last(last), .b(b), .drained(drained),
      .weight_valid(weight_valid), .weight_row(weight_row), .weights(weights), .sums(sums)
  );

  function automatic logic is_float_type(input int dtype);
    return dtype >= DTYPE_F32 && dtype <= DTYPE_F8E5M2;
  endfunction

  // An integer element or zero point. Reads take ports, so they stand in statements of their own: Verilator evaluates both sides
  // of `?`, and of an `if` whose sides assign to the same.
  function automatic longint integer_at(input int unit, input int dtype, input longint nibble);
    return longint'(lane_load(dtype, CLASS_SIGNED, systolic.memory.read(unit, 0, nibble, lane_bits(dtype))));
  endfunction

  function automatic logic [15:0] operand(input int unit, input int dtype, input longint nibble, input longint zero);
    int unsigned rounded;
    if (is_float_type(dtype)) begin
      rounded = lane_bf16_round(dtype, systolic.memory.read(unit, 0, nibble, lane_bits(dtype)));
      return rounded[31:16];
    end
    return 16'(integer_at(unit, dtype, nibble) - zero);
  endfunction

  // A stride in nibbles; four-bit elements with stride 0 lie packed.
  function automatic longint step_of(input int dtype, input longint stride);
    return lane_bits(dtype) == 4 && stride == 0 ? 1 : 2 * stride;
  endfunction

  // Preloads: type, size, rows of a group, strides, zero point, and the row of each block that enters in this cycle.
  int weight_dtype, weight_k, weight_n, weight_rows;
  longint k_step, n_step, weight_zero;
  int row;
  // Columns of the weights in waiting, and of those in use.
  int waiting_n, active_n;

  task automatic begin_preload();
    int unsigned kinds, sizes;
    kinds = word_of(preload, 1);
    sizes = word_of(preload, 2);
    weight_dtype = int'(kinds[7:0]);
    weight_rows = ROWS / int'(kinds[23:8]);
    weight_k = int'(sizes[15:0]);
    weight_n = int'(sizes[31:16]);
    n_step = step_of(weight_dtype, signed_of(preload, 4));
    // Nibbles are packed along n if they can be, else along k.
    if (lane_bits(weight_dtype) == 4 && signed_of(preload, 4) == 0) k_step = 2 * signed_of(preload, 3);
    else k_step = step_of(weight_dtype, signed_of(preload, 3));
    weight_zero = 0;
    if (kinds[24]) weight_zero = integer_at(PRELOAD, weight_dtype, 2 * longint'(word_of(preload, 6)));
    waiting_n = weight_n;
    row = 0;
  endtask

  // A cycle of a preload.
  task automatic feed_weights();
    int of_group;
    longint origin;
    logic [15:0] element;
    preload_last = 0;
    weight_valid = preload_working;
    if (preload_start) begin_preload();
    if (preload_working) begin
      weight_row = ROW_BITS'(row);
      for (int b = 0; b < BLOCKS; b++) begin
        of_group = (b * BLOCK_ROWS + row) % weight_rows;
        origin = 2 * (longint'(word_of(preload, 0))
            + longint'((b * BLOCK_ROWS + row) / weight_rows) * signed_of(preload, 5));
        for (int c = 0; c < COLUMNS; c++) begin
          element = 16'b0;
          if (of_group < weight_k && c < weight_n)
            element = operand(
                PRELOAD, weight_dtype, origin + longint'(of_group) * k_step + longint'(c) * n_step, weight_zero);
          weights[(b*COLUMNS+c)*16+:16] = element;
        end
      end
      row = row + 1;
      preload_last = row == BLOCK_ROWS;
    end
  endtask

  // Passes: the row of A that enters in this cycle, rows of a group, and how many of them are used.
  int a_dtype, active_rows = ROWS, active_k;
  longint a_step, a_zero;
  longint unsigned a_row;
  logic accumulate;

  task automatic begin_pass();
    int unsigned kinds;
    kinds = word_of(pass, 1);
    a_dtype = int'(kinds[7:0]);
    accumulate = kinds[9];
    a_step = step_of(a_dtype, signed_of(pass, 4));
    a_zero = 0;
    if (kinds[8]) a_zero = integer_at(ARRAY, a_dtype, 2 * longint'(word_of(pass, 8)));
    if (kinds[10]) begin
      active_n = waiting_n;
      active_k = weight_k;
      active_rows = weight_rows;
    end
    a_row = 0;
  endtask

  // Passes whose sums stay: types and zero points, strides of A along rows and steps, of B along steps and columns.
  int b_dtype, outer_m, outer_n;
  longint b_zero, outer_strides[4];
  longint unsigned outer_k, step;

  // A stride in nibbles of a walk; nibbles lie packed along its second dimension.
  function automatic longint walk_step(input int dtype, input int word, input int dimension);
    return lane_bits(dtype) == 4 && dimension == 1 ? 1 : 2 * signed_of(pass, word + dimension);
  endfunction

  task automatic begin_outer();
    int unsigned kinds, sizes;
    kinds = word_of(pass, 0);
    sizes = word_of(pass, 1);
    accumulate = kinds[0];
    outer_m = int'(sizes[15:0]);
    outer_n = int'(sizes[31:16]);
    outer_k = word_of(pass, 2);
    a_dtype = int'(word_of(pass, 4) >> 16) & 255;
    b_dtype = int'(word_of(pass, 8) >> 16) & 255;
    for (int d = 0; d < 2; d++) begin
      outer_strides[d] = walk_step(a_dtype, 6, d);
      outer_strides[2+d] = walk_step(b_dtype, 10, d);
    end
    a_zero = 0;
    b_zero = 0;
    if (kinds[1]) a_zero = integer_at(ARRAY, a_dtype, 2 * longint'(word_of(pass, 12)));
    if (kinds[2]) b_zero = integer_at(ARRAY, b_dtype, 2 * longint'(word_of(pass, kinds[1] ? 13 : 12)));
    step = 0;
  endtask

  // A cycle of a pass whose sums stay. Those of the pass before take as many cycles as there are rows to move out.
  task automatic feed_step();
    logic [15:0] element;
    stays = 1;
    first = step == 0;
    is_float = is_float_type(a_dtype);
    begins = 0;
    valid = step < outer_k;
    for (int r = 0; r < ROWS; r++) begin
      element = 16'b0;
      if (valid && r < outer_m)
        element = operand(
            ARRAY, a_dtype,
            2 * longint'(word_of(pass, 5)) + longint'(r) * outer_strides[0] + longint'(step) * outer_strides[1],
            a_zero);
      a[r*16+:16] = element;
    end
    for (int c = 0; c < COLUMNS; c++) begin
      element = 16'b0;
      if (valid && c < outer_n)
        element = operand(
            ARRAY, b_dtype,
            2 * longint'(word_of(pass, 9)) + longint'(step) * outer_strides[2] + longint'(c) * outer_strides[3],
            b_zero);
      b[c*16+:16] = element;
    end
    result_row = longint'(word_of(pass, 3));
    step = step + 1;
    pass_last = step >= outer_k && step >= ROWS;
    last = pass_last;
  endtask

  logic [63:0] result_row;
  logic [31:0] group_rows;

  // A cycle of a pass.
  task automatic feed_rows();
    int unsigned kinds;
    int of_group;
    longint origin;
    logic [15:0] element;
    pass_last = 0;
    valid = 0;
    switching = 0;
    stays = 0;
    last = 0;
    if (pass_working && int'(pass.opcode) == OP_OUTER) begin
      if (pass_start) begin_outer();
      feed_step();
    end else if (pass_working) begin
      if (pass_start) begin_pass();
      kinds = word_of(pass, 1);
      // Also a pass of no rows switches weights.
      switching = a_row == 0 && kinds[10];
      is_float = is_float_type(a_dtype);
      if (a_row < longint'(word_of(pass, 2))) begin
        valid = 1;
        for (int b = 0; b < BLOCKS; b++) begins[b] = b * BLOCK_ROWS % active_rows == 0;
        for (int r = 0; r < ROWS; r++) begin
          of_group = r % active_rows;
          origin = 2 * (longint'(word_of(pass, 0)) + longint'(r / active_rows) * signed_of(pass, 6)
              + longint'(a_row) * signed_of(pass, 3));
          element = 16'b0;
          if (of_group < active_k) element = operand(ARRAY, a_dtype, origin + longint'(of_group) * a_step, a_zero);
          a[r*16+:16] = element;
        end
        result_row = longint'(word_of(pass, 5)) + a_row;
        group_rows = word_of(pass, 7);
      end
      a_row = a_row + 1;
      pass_last = a_row >= longint'(word_of(pass, 2));
    end
  endtask

  // The pass first: a preload that starts together with it brings the weights after those that it takes.
  always @(negedge clk) begin
    feed_rows();
    feed_weights();
  end

  // What becomes of the sums, in step with them.
  typedef struct packed {
    logic valid;
    logic is_float;
    logic accumulate;
    // Columns that are written, and rows of the array in a group.
    logic [31:0] columns;
    logic [31:0] rows;
    // Where the sums of the first group go, and how much further those of the next.
    logic [63:0] result_row;
    logic [31:0] group_rows;
  } intent_t;
  intent_t intent, due;
  assign intent = {valid && !stays, is_float, accumulate, active_n, active_rows, result_row, group_rows};
  delay #(.WIDTH($bits(intent_t)), .CYCLES(LATENCY)) in_step (.clk(clk), .in(intent), .out(due));

  // What becomes of sums that have stayed, once the last row of them comes out; the rows above follow.
  typedef struct packed {
    logic valid;
    logic is_float;
    logic accumulate;
    // Rows and columns that are written.
    logic [31:0] rows;
    logic [31:0] columns;
    logic [63:0] result_row;
  } drain_t;
  drain_t drain_intent, drain_due, draining;
  assign drain_intent = {last, is_float, accumulate, outer_m, outer_n, result_row};
  delay #(.WIDTH($bits(drain_t)), .CYCLES(ROWS + COLUMNS - 1)) in_step_with_drain (
      .clk(clk), .in(drain_intent), .out(drain_due)
  );
  // The row that comes out; none is below 0.
  int drain_row = -1;

  // Takes the sum of a column to an accumulator.
  task automatic write_sum(
      input longint result, input int column, input logic [31:0] sum, input logic adds, input logic adds_floats);
    logic [31:0] old;
    longint at;
    at = 4 * (result * COLUMNS + longint'(column));
    old = 32'(systolic.memory.read(ARRAY, 1, 2 * at, 32));
    systolic.memory.write(ARRAY, 1, 2 * at, 32, longint'(!adds ? sum : adds_floats ? add32(old, sum) : old + sum));
  endtask

  always @(posedge clk) begin
    int below;
    if (drain_due.valid) begin
      draining = drain_due;
      drain_row = ROWS - 1;
    end
    if (drain_row >= 0) begin
      for (int c = 0; c < COLUMNS; c++) begin
        if (drain_row < int'(draining.rows) && c < int'(draining.columns))
          write_sum(
              longint'(draining.result_row) + longint'(drain_row), c, drained[c*32+:32], draining.accumulate,
              draining.is_float);
      end
      drain_row = drain_row - 1;
    end
    if (due.valid) begin
      for (int g = 0; g < ROWS / int'(due.rows); g++) begin
        // The last block of the group.
        below = (g + 1) * int'(due.rows) / BLOCK_ROWS - 1;
        for (int c = 0; c < COLUMNS; c++) begin
          if (c < int'(due.columns))
            write_sum(
                longint'(due.result_row) + longint'(g) * longint'(due.group_rows), c, sums[(below*COLUMNS+c)*32+:32],
                due.accumulate, due.is_float);
        end
      end
    end
  end
endmodule
