// A bank of memory with a port to read and one to write. What is read is there one cycle later, as it was before the cycle.
// STORAGE is 1 for block RAM, 2 for UltraRAM.

module memory_simple #(
    parameter int WIDTH = 8,
    parameter int WORDS = 16,
    parameter int ADDRESS = 4,
    parameter int STORAGE = 1
) (
    input logic clk,
    input logic [ADDRESS-1:0] read_address,
    output logic [WIDTH-1:0] out,
    input logic [ADDRESS-1:0] write_address,
    input logic write,
    input logic [WIDTH-1:0] in
);
  generate
    if (STORAGE == 2) begin : ultra
      (* ram_style = "ultra" *) logic [WIDTH-1:0] words[WORDS];
      always_ff @(posedge clk) begin
        out <= words[read_address];
        if (write) words[write_address] <= in;
      end
    end else begin : block
      (* ram_style = "block" *) logic [WIDTH-1:0] words[WORDS];
      always_ff @(posedge clk) begin
        out <= words[read_address];
        if (write) words[write_address] <= in;
      end
    end
  endgenerate
endmodule
