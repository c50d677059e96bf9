// The array: ROWS x COLUMNS cells, with the delays that put operands and results in step. The rows of all arrays of a chip
// stand here one below the other, in blocks of BLOCK_ROWS.
//
// Element r of a row of A enters row r of the array r cycles after element 0. Weights enter each block from above, on a bus
// of its own; those for column c enter c cycles after those for column 0, and those of a block as many cycles after those of
// the first as it stands rows lower. The sum of a row of A over column c leaves the last row of a block as many cycles after
// that row entered as the block's last row and column c stand from the first, and is held back so that the sums of all blocks
// and columns come out together, in the cycle ROWS + COLUMNS - 2 after. Where `begins` is set for a block, its sums begin at
// zero; else they go on from those of the block above.
//
// In a pass whose sums stay, a column of A and a row of B enter together, B from above with the skew of weights for the first
// block. Sums move out of the array from the last row on: those of the last row ROWS + COLUMNS - 1 cycles after `last`
// entered, all columns in one cycle, those of the row before a cycle later. Row r takes part in that for r cycles, until the
// sums of the first row have passed.

module systolic_array #(
    parameter int ROWS = 4,
    parameter int COLUMNS = 4,
    parameter int BLOCK_ROWS = 4,
    parameter int ROW_BITS = 10,
    localparam int BLOCKS = ROWS / BLOCK_ROWS
) (
    input logic clk,
    // A row of A for each group, all elements in one cycle.
    input logic valid,
    input logic is_float,
    input logic switch_weights,
    input logic [BLOCKS-1:0] begins,
    input logic [ROWS*16-1:0] a,
    // Sums stay; they begin, and are complete with this cycle.
    input logic stays,
    input logic first,
    input logic last,
    input logic [COLUMNS*16-1:0] b,
    // A row of weights for each block.
    input logic weight_valid,
    input logic [ROW_BITS-1:0] weight_row,
    input logic [BLOCKS*COLUMNS*16-1:0] weights,
    // Sums below each block, of the rows of A that entered ROWS + COLUMNS - 2 cycles ago.
    output logic [BLOCKS*COLUMNS*32-1:0] sums,
    // Sums that have stayed, a row in a cycle.
    output logic [COLUMNS*32-1:0] drained
);
  localparam int BUNDLE = 23;
  localparam int WEIGHT = 17 + ROW_BITS;

  // Between the cells, by row and column: what enters a cell from the west, weights and sums from the north.
  wire [(ROWS*(COLUMNS+1))*BUNDLE-1:0] east;
  wire [(ROWS*COLUMNS)*WEIGHT-1:0] north_weights;
  wire [((ROWS+1)*COLUMNS)*32-1:0] down;
  // Sums that move out, and who takes part in that, by row and column.
  wire [((ROWS+1)*COLUMNS)*32-1:0] drain;
  wire [(ROWS*(COLUMNS+1))-1:0] shift;
  // When the rows begin to move sums out, all at once, and when each ends.
  wire [ROWS:0] ends;
  delay #(.WIDTH(1), .CYCLES(ROWS)) until_all_are_complete (.clk(clk), .in(last), .out(ends[0]));

  genvar r, c;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : rows
      localparam int BLOCK = r / BLOCK_ROWS;
      // Only the first row of a block begins sums.
      wire begins_here = r % BLOCK_ROWS == 0 && begins[BLOCK];
      wire [BUNDLE-1:0] entering = {stays, first, last, begins_here, valid, is_float, switch_weights, a[r*16+:16]};
      delay #(.WIDTH(BUNDLE), .CYCLES(r)) skew (
          .clk(clk), .in(entering), .out(east[(r*(COLUMNS+1))*BUNDLE+:BUNDLE])
      );
      delay #(.WIDTH(1), .CYCLES(1)) until_row_ends (.clk(clk), .in(ends[r]), .out(ends[r+1]));
      reg moving = 1'b0;
      assign shift[r*(COLUMNS+1)] = (ends[0] || moving) && !ends[r];
      always_ff @(posedge clk) moving <= shift[r*(COLUMNS+1)];
      for (c = 0; c < COLUMNS; c = c + 1) begin : column
        wire [BUNDLE-1:0] west = east[(r*(COLUMNS+1)+c)*BUNDLE+:BUNDLE];
        wire [WEIGHT-1:0] north = north_weights[(r*COLUMNS+c)*WEIGHT+:WEIGHT];
        wire [31:0] sum_now;
        wire stays_out, first_out, last_out, begins_out, valid_out, float_out, switch_out, weight_valid_out;
        wire [15:0] a_out, weight_out;
        wire [ROW_BITS-1:0] weight_row_out;
        array_cell #(.ROW_BITS(ROW_BITS)) cell_of_grid (
            .clk(clk), .row(ROW_BITS'(r % BLOCK_ROWS)),
            .stays_in(west[22]), .first_in(west[21]), .last_in(west[20]), .shift_in(shift[r*(COLUMNS+1)+c]),
            .stays_out(stays_out), .first_out(first_out), .last_out(last_out),
            .shift_out(shift[r*(COLUMNS+1)+c+1]),
            .begins_in(west[19]), .valid_in(west[18]), .float_in(west[17]), .switch_in(west[16]), .a_in(west[15:0]),
            .begins_out(begins_out), .valid_out(valid_out), .float_out(float_out), .switch_out(switch_out),
            .a_out(a_out),
            .weight_valid_in(north[16+ROW_BITS]), .weight_row_in(north[16+:ROW_BITS]), .weight_in(north[15:0]),
            .weight_valid_out(weight_valid_out), .weight_row_out(weight_row_out), .weight_out(weight_out),
            .sum_in(down[(r*COLUMNS+c)*32+:32]), .sum_now(sum_now),
            .sum_out(down[((r+1)*COLUMNS+c)*32+:32]),
            .drain_in(drain[(r*COLUMNS+c)*32+:32]), .drain_out(drain[((r+1)*COLUMNS+c)*32+:32])
        );
        assign east[(r*(COLUMNS+1)+c+1)*BUNDLE+:BUNDLE] =
            {stays_out, first_out, last_out, begins_out, valid_out, float_out, switch_out, a_out};
        if (r % BLOCK_ROWS == BLOCK_ROWS - 1) begin : last_of_block
          delay #(.WIDTH(32), .CYCLES(ROWS-1-r+COLUMNS-1-c)) deskew (
              .clk(clk), .in(sum_now), .out(sums[(BLOCK*COLUMNS+c)*32+:32])
          );
        end else begin : within_block
          assign north_weights[((r+1)*COLUMNS+c)*WEIGHT+:WEIGHT] = {weight_valid_out, weight_row_out, weight_out};
        end
        if (r % BLOCK_ROWS == 0) begin : first_of_block
          delay #(.WIDTH(WEIGHT), .CYCLES(r+c)) weight_skew (
              .clk(clk), .in({weight_valid, weight_row, weights[(BLOCK*COLUMNS+c)*16+:16]}),
              .out(north_weights[(r*COLUMNS+c)*WEIGHT+:WEIGHT])
          );
        end
      end
    end
    for (c = 0; c < COLUMNS; c = c + 1) begin : top
      wire [15:0] b_skewed;
      delay #(.WIDTH(16), .CYCLES(c)) b_skew (.clk(clk), .in(b[c*16+:16]), .out(b_skewed));
      assign down[c*32+:32] = {16'b0, b_skewed};
      assign drain[c*32+:32] = 32'b0;
      delay #(.WIDTH(32), .CYCLES(COLUMNS-1-c)) drain_deskew (
          .clk(clk), .in(drain[(ROWS*COLUMNS+c)*32+:32]), .out(drained[c*32+:32])
      );
    end
  endgenerate
endmodule
