// A word, so many cycles later.

module delay #(
    parameter int WIDTH = 1,
    parameter int CYCLES = 1
) (
    input logic clk,
    input logic [WIDTH-1:0] in,
    output logic [WIDTH-1:0] out
);
  generate
    if (CYCLES == 0) begin : none
      assign out = in;
    end else begin : some
      logic [CYCLES*WIDTH-1:0] held;
      if (CYCLES == 1) begin : one
        always_ff @(posedge clk) held <= in;
      end else begin : several
        always_ff @(posedge clk) held <= {held[(CYCLES-1)*WIDTH-1:0], in};
      end
      assign out = held[CYCLES*WIDTH-1-:WIDTH];
    end
  endgenerate
endmodule
