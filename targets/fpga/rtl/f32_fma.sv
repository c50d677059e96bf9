// a b + c of binary32 numbers, rounded once to nearest even, subnormals included.

module f32_fma #(
    parameter int LATENCY = 6
) (
    input logic clk,
    input logic [31:0] a,
    input logic [31:0] b,
    input logic [31:0] c,
    output logic [31:0] y
);
  `include "float.svh"
  `include "cuts.svh"
  localparam int CUTS = 6;
  // The product lies in bits 51 to 4 of a window of 78, c in the upper bits at most. Where bits of c leave it below, the product
  // is so large that at least 24 bits and two more are left of the sum; where those of the product do, they are below an eighth
  // of the last bit of c.
  localparam int WINDOW = 78;
  localparam int PRODUCT_AT = 4;
  localparam int MOST = 54;

  logic [31:0] a1, b1, c1;
  delay #(.WIDTH(96), .CYCLES(cut(LATENCY, CUTS, 0))) delay0 (.clk, .in({a, b, c}), .out({a1, b1, c1}));

  // The product, and how far above its last bit the last bit of c is.
  logic [47:0] product1, product2;
  logic signed [11:0] a_exponent, b_exponent, c_exponent, place1, base1, place2, base2;
  logic product_sign, c_sign, is_special, a_nan, b_nan, c_nan, a_inf, b_inf, c_inf, a_zero, b_zero;
  logic [31:0] special1, special2;
  logic [23:0] c2;
  logic product_sign2, c_sign2, is_special2;
  assign product1 = {24'b0, |a1[30:23], a1[22:0]} * {24'b0, |b1[30:23], b1[22:0]};
  always_comb begin
    product_sign = a1[31] ^ b1[31];
    c_sign = c1[31];
    a_exponent = $signed({4'b0, a1[30:23]}) + $signed({11'b0, !(|a1[30:23])});
    b_exponent = $signed({4'b0, b1[30:23]}) + $signed({11'b0, !(|b1[30:23])});
    c_exponent = $signed({4'b0, c1[30:23]}) + $signed({11'b0, !(|c1[30:23])});
    place1 = c_exponent - a_exponent - b_exponent + 12'sd150 + 12'sd4;
    base1 = place1 > 12'sd54 ? c_exponent - 12'sd54 : a_exponent + b_exponent - 12'sd150 - 12'sd4;
    a_nan = &a1[30:23] && |a1[22:0];
    b_nan = &b1[30:23] && |b1[22:0];
    c_nan = &c1[30:23] && |c1[22:0];
    a_inf = &a1[30:23] && !(|a1[22:0]);
    b_inf = &b1[30:23] && !(|b1[22:0]);
    c_inf = &c1[30:23] && !(|c1[22:0]);
    a_zero = !(|a1[30:0]);
    b_zero = !(|b1[30:0]);
    is_special = a_nan || b_nan || c_nan || a_inf || b_inf || c_inf || a_zero || b_zero;
    if (a_nan || b_nan || c_nan || (a_inf && b_zero) || (b_inf && a_zero)) special1 = CANONICAL_NAN;
    else if (a_inf || b_inf) special1 = c_inf && c_sign != product_sign ? CANONICAL_NAN : {product_sign, 8'hff, 23'b0};
    else if (c_inf || |c1[30:0]) special1 = c1;
    else special1 = {product_sign && c_sign, 31'b0};
  end
  delay #(.WIDTH(48), .CYCLES(cut(LATENCY, CUTS, 1))) delay1 (.clk, .in(product1), .out(product2));
  delay #(.WIDTH(83), .CYCLES(cut(LATENCY, CUTS, 1))) delay1b (
      .clk,
      .in({place1, base1, product_sign, c_sign, is_special, special1, |c1[30:23], c1[22:0]}),
      .out({place2, base2, product_sign2, c_sign2, is_special2, special2, c2})
  );

  // Both in the window.
  logic [WINDOW-1:0] left2, right2, left3, right3;
  logic [11:0] down;
  logic signed [11:0] base3;
  logic product_sign3, c_sign3, is_special3, is_less3;
  logic [31:0] special3;
  always_comb begin
    down = -place2;
    if (place2 > 12'sd54) begin
      left2 = {{(WINDOW - 1) {1'b0}}, |product2};
      right2 = {{(WINDOW - 24) {1'b0}}, c2} << MOST;
    end else begin
      left2 = {{(WINDOW - 48) {1'b0}}, product2} << PRODUCT_AT;
      if (place2 >= 0) right2 = {{(WINDOW - 24) {1'b0}}, c2} << place2[5:0];
      else if (down >= 12'd24) right2 = {{(WINDOW - 1) {1'b0}}, |c2};
      else begin
        right2 = {{(WINDOW - 24) {1'b0}}, c2 >> down[4:0]};
        right2[0] = right2[0] | (|(c2 & ~(24'hffffff << down[4:0])));
      end
    end
  end
  delay #(.WIDTH(2 * WINDOW + 47), .CYCLES(cut(LATENCY, CUTS, 2))) delay2 (
      .clk,
      .in({left2, right2, base2, product_sign2, c_sign2, is_special2, special2}),
      .out({left3, right3, base3, product_sign3, c_sign3, is_special3, special3})
  );

  // The magnitude of the sum.
  logic [WINDOW:0] sum3, sum4;
  logic sign3, sign4, is_special4;
  logic signed [11:0] base4;
  logic [31:0] special4;
  always_comb begin
    is_less3 = left3 < right3;
    sign3 = is_less3 ? c_sign3 : product_sign3;
    if (product_sign3 == c_sign3) sum3 = {1'b0, left3} + {1'b0, right3};
    else sum3 = {1'b0, is_less3 ? right3 - left3 : left3 - right3};
  end
  delay #(.WIDTH(WINDOW + 47), .CYCLES(cut(LATENCY, CUTS, 3))) delay3 (
      .clk,
      .in({sum3, sign3, base3, is_special3, special3}),
      .out({sum4, sign4, base4, is_special4, special4})
  );

  // Its first one at the front.
  logic [6:0] zeros;
  logic [WINDOW:0] normal;
  logic found, is_zero;
  logic [27:0] significand5;
  logic signed [11:0] exponent5;
  logic sign5, is_special5;
  logic [31:0] special5;
  always_comb begin
    zeros = 7'd0;
    found = 1'b0;
    for (int i = WINDOW; i >= 0; i--) begin
      if (sum4[i] && !found) begin
        zeros = 7'(WINDOW - i);
        found = 1'b1;
      end
    end
    is_zero = !found;
    normal = sum4 << zeros;
  end
  delay #(.WIDTH(74), .CYCLES(cut(LATENCY, CUTS, 4))) delay4 (
      .clk,
      .in({normal[WINDOW-:27], |normal[WINDOW-27:0], base4 + 12'sd55 - $signed({5'b0, zeros}), sign4,
           is_special4 || is_zero, is_special4 ? special4 : 32'b0}),
      .out({significand5, exponent5, sign5, is_special5, special5})
  );

  // Rounded.
  logic [31:0] result;
  assign result = is_special5 ? special5 : round32(sign5, exponent5, significand5);
  delay #(.WIDTH(32), .CYCLES(cut(LATENCY, CUTS, 5))) delay5 (.clk, .in(result), .out(y));
endmodule
