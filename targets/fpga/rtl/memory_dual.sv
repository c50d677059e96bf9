// A bank of memory with two ports, each of which reads or writes in a cycle. What is read is there one cycle later, as it was
// before the cycle. STORAGE is 1 for block RAM, 2 for UltraRAM.

module memory_dual #(
    parameter int WIDTH = 8,
    parameter int WORDS = 16,
    parameter int ADDRESS = 4,
    parameter int STORAGE = 1
) (
    input logic clk,
    input logic [ADDRESS-1:0] address0,
    input logic write0,
    input logic [WIDTH-1:0] in0,
    output logic [WIDTH-1:0] out0,
    input logic [ADDRESS-1:0] address1,
    input logic write1,
    input logic [WIDTH-1:0] in1,
    output logic [WIDTH-1:0] out1
);
  generate
    if (STORAGE == 2) begin : ultra
      (* ram_style = "ultra" *) logic [WIDTH-1:0] words[WORDS];
      always_ff @(posedge clk) begin
        out0 <= words[address0];
        if (write0) words[address0] <= in0;
      end
      always_ff @(posedge clk) begin
        out1 <= words[address1];
        if (write1) words[address1] <= in1;
      end
    end else begin : block
      (* ram_style = "block" *) logic [WIDTH-1:0] words[WORDS];
      always_ff @(posedge clk) begin
        out0 <= words[address0];
        if (write0) words[address0] <= in0;
      end
      always_ff @(posedge clk) begin
        out1 <= words[address1];
        if (write1) words[address1] <= in1;
      end
    end
  endgenerate
endmodule
