// The array: ROWS x COLUMNS cells, with the delays that put operands and results in step.
//
// Element r of a row of A enters row r of the array r cycles after element 0; weights for column c enter c cycles after
// those for column 0. The sum of a row of A over column c leaves the last row ROWS - 1 + c cycles after that row entered,
// and is held back so that all columns come out together, in the cycle ROWS + COLUMNS - 2 after.

module systolic_array #(
    parameter int ROWS = 4,
    parameter int COLUMNS = 4,
    parameter int ROW_BITS = 10
) (
    input logic clk,
    // A row of A, all elements in one cycle.
    input logic valid,
    input logic is_float,
    input logic switch_weights,
    input logic [ROWS*16-1:0] a,
    // A row of weights.
    input logic weight_valid,
    input logic [ROW_BITS-1:0] weight_row,
    input logic [COLUMNS*16-1:0] weights,
    // Sums of the row of A that entered ROWS + COLUMNS - 2 cycles ago.
    output logic [COLUMNS*32-1:0] sums
);
  localparam int BUNDLE = 19;

  // Between the cells, by row and column: what enters a cell from the west and from the north.
  wire [(ROWS*(COLUMNS+1))*BUNDLE-1:0] east;
  wire [((ROWS+1)*COLUMNS)*(17+ROW_BITS)-1:0] south;
  wire [((ROWS+1)*COLUMNS)*32-1:0] down;

  genvar r, c;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : rows
      wire [BUNDLE-1:0] entering = {valid, is_float, switch_weights, a[r*16+:16]};
      delay #(.WIDTH(BUNDLE), .CYCLES(r)) skew (
          .clk(clk), .in(entering), .out(east[(r*(COLUMNS+1))*BUNDLE+:BUNDLE])
      );
      for (c = 0; c < COLUMNS; c = c + 1) begin : column
        wire [BUNDLE-1:0] west = east[(r*(COLUMNS+1)+c)*BUNDLE+:BUNDLE];
        wire [16+ROW_BITS:0] north = south[(r*COLUMNS+c)*(17+ROW_BITS)+:17+ROW_BITS];
        wire [31:0] sum_now;
        wire valid_out, float_out, switch_out, weight_valid_out;
        wire [15:0] a_out, weight_out;
        wire [ROW_BITS-1:0] weight_row_out;
        array_cell #(.ROW_BITS(ROW_BITS)) cell_of_grid (
            .clk(clk), .row(ROW_BITS'(r)),
            .valid_in(west[18]), .float_in(west[17]), .switch_in(west[16]), .a_in(west[15:0]),
            .valid_out(valid_out), .float_out(float_out), .switch_out(switch_out), .a_out(a_out),
            .weight_valid_in(north[16+ROW_BITS]), .weight_row_in(north[16+:ROW_BITS]), .weight_in(north[15:0]),
            .weight_valid_out(weight_valid_out), .weight_row_out(weight_row_out), .weight_out(weight_out),
            .sum_in(down[(r*COLUMNS+c)*32+:32]), .sum_now(sum_now),
            .sum_out(down[((r+1)*COLUMNS+c)*32+:32])
        );
        assign east[(r*(COLUMNS+1)+c+1)*BUNDLE+:BUNDLE] = {valid_out, float_out, switch_out, a_out};
        assign south[((r+1)*COLUMNS+c)*(17+ROW_BITS)+:17+ROW_BITS] = {weight_valid_out, weight_row_out, weight_out};
        if (r == ROWS - 1) begin : last
          delay #(.WIDTH(32), .CYCLES(COLUMNS-1-c)) deskew (.clk(clk), .in(sum_now), .out(sums[c*32+:32]));
        end
      end
    end
    for (c = 0; c < COLUMNS; c = c + 1) begin : top
      assign down[c*32+:32] = 32'b0;
      delay #(.WIDTH(17+ROW_BITS), .CYCLES(c)) skew (
          .clk(clk), .in({weight_valid, weight_row, weights[c*16+:16]}),
          .out(south[c*(17+ROW_BITS)+:17+ROW_BITS])
      );
    end
  endgenerate
endmodule
