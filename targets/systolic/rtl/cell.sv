// One cell of the array: a multiply-accumulator with weights in use and weights in waiting, or with a sum that stays.
//
// Rows of A come from the west, one cycle later in every row of the array; sums come from the north, or begin here at zero
// where `begins` says so. Weights travel south on a path of their own and are kept by the cell of the row that they name,
// counted within the block. `switch_weights` travels with the first row of a pass, so that each cell goes over to the new
// weights just when that pass reaches it.
//
// Where `stays` is set, what comes from the north is no sum but an element of B, which goes on to the south as it is, and the
// sum stays. It begins at zero with `first`; with `last` it is handed to the register from which it moves out of the array,
// southwards whenever `shift` says so.

module array_cell #(
    parameter int ROW_BITS = 10
) (
    input logic clk,
    // The row of its block that the cell stands in; a constant.
    input logic [ROW_BITS-1:0] row,
    // A, moving east.
    input logic stays_in,
    input logic first_in,
    input logic last_in,
    input logic shift_in,
    input logic begins_in,
    input logic valid_in,
    input logic float_in,
    input logic switch_in,
    input logic [15:0] a_in,
    output logic stays_out,
    output logic first_out,
    output logic last_out,
    output logic shift_out,
    output logic begins_out,
    output logic valid_out,
    output logic float_out,
    output logic switch_out,
    output logic [15:0] a_out,
    // Weights, moving south.
    input logic weight_valid_in,
    input logic [ROW_BITS-1:0] weight_row_in,
    input logic [15:0] weight_in,
    output logic weight_valid_out,
    output logic [ROW_BITS-1:0] weight_row_out,
    output logic [15:0] weight_out,
    // Sums, or elements of B, moving south: this cycle's, and the same a cycle later.
    input logic [31:0] sum_in,
    output logic [31:0] sum_now,
    output logic [31:0] sum_out,
    // Sums that have stayed, moving out.
    input logic [31:0] drain_in,
    output logic [31:0] drain_out
);
  /*verilator no_inline_module*/
  `include "float.svh"

  logic [15:0] waiting;
  logic [15:0] active;
  logic [15:0] weight;
  logic [31:0] staying;
  logic [31:0] above;
  logic [31:0] total;

  always_comb begin
    if (stays_in) begin
      weight = sum_in[15:0];
      above = first_in ? 32'b0 : staying;
    end else begin
      weight = switch_in ? waiting : active;
      above = begins_in ? 32'b0 : sum_in;
    end
  end

  // Integers are 9 bits with sign; sums wrap.
  logic signed [31:0] product;
  assign product = 32'($signed(a_in[8:0])) * 32'($signed(weight[8:0]));

  always_comb begin
    if (!valid_in) total = above;
    else if (float_in) total = add32(above, multiply16(a_in, weight));
    else total = above + product;
    sum_now = stays_in ? sum_in : total;
  end

  always_ff @(posedge clk) begin
    stays_out <= stays_in;
    first_out <= first_in;
    last_out <= last_in;
    shift_out <= shift_in;
    begins_out <= begins_in;
    valid_out <= valid_in;
    float_out <= float_in;
    switch_out <= switch_in;
    a_out <= a_in;
    sum_out <= sum_now;
    if (switch_in) active <= waiting;
    if (stays_in) staying <= total;
    if (last_in) drain_out <= total;
    else if (shift_in) drain_out <= drain_in;
    weight_valid_out <= weight_valid_in;
    weight_row_out <= weight_row_in;
    weight_out <= weight_in;
    if (weight_valid_in && weight_row_in == row) waiting <= weight_in;
  end
endmodule
