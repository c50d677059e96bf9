// An integer as a binary32 number, rounded to nearest even.

module f32_of_int #(
    parameter int LATENCY = 3,
    parameter int WIDTH = 32,
    parameter int SIGNED = 1
) (
    input logic clk,
    input logic [WIDTH-1:0] a,
    output logic [31:0] y
);
  `include "float.svh"
  `include "cuts.svh"
  localparam int CUTS = 3;

  logic sign0, sign1, sign2, found, is_zero1, is_zero2;
  logic [WIDTH-1:0] magnitude0, magnitude1;
  assign sign0 = SIGNED != 0 && a[WIDTH-1];
  assign magnitude0 = sign0 ? -a : a;
  delay #(.WIDTH(WIDTH + 1), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (
      .clk, .in({sign0, magnitude0}), .out({sign1, magnitude1}));

  logic [5:0] zeros1, zeros2;
  logic [63:0] normal;
  logic [27:0] significand2;
  always_comb begin
    zeros1 = 6'd0;
    found = 1'b0;
    for (int i = WIDTH - 1; i >= 0; i--) begin
      if (magnitude1[i] && !found) begin
        zeros1 = 6'(WIDTH - 1 - i);
        found = 1'b1;
      end
    end
    normal = {magnitude1, {(64 - WIDTH) {1'b0}}} << zeros1;
    is_zero1 = !found;
  end
  delay #(.WIDTH(36), .CYCLES(cut(LATENCY, CUTS, 1))) delay1 (
      .clk,
      .in({sign1, is_zero1, zeros1, normal[63:37], |normal[36:0]}),
      .out({sign2, is_zero2, zeros2, significand2})
  );

  logic [31:0] result;
  assign result = is_zero2 ? 32'b0 : round32(sign2, 12'(127 + WIDTH - 1) - $signed({6'b0, zeros2}), significand2);
  delay #(.WIDTH(32), .CYCLES(cut(LATENCY, CUTS, 2))) delay2 (.clk, .in(result), .out(y));
endmodule
