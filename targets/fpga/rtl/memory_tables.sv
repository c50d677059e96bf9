// A bank of memory in look-up tables, with one port to write and several to read, each of which gives a word in the same cycle.

module memory_tables #(
    parameter int WIDTH = 8,
    parameter int WORDS = 16,
    parameter int ADDRESS = 4,
    parameter int READS = 1
) (
    input logic clk,
    input logic [READS*ADDRESS-1:0] read_address,
    output logic [READS*WIDTH-1:0] out,
    input logic [ADDRESS-1:0] write_address,
    input logic write,
    input logic [WIDTH-1:0] in
);
  (* ram_style = "distributed" *) logic [WIDTH-1:0] words[WORDS];
  always_ff @(posedge clk) if (write) words[write_address] <= in;
  generate
    for (genvar port = 0; port < READS; port++) begin : reads
      assign out[port*WIDTH+:WIDTH] = words[read_address[port*ADDRESS+:ADDRESS]];
    end
  endgenerate
endmodule
