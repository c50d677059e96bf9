// How many zeros stand before the first one of 48 bits.
function automatic logic [5:0] leading_zeros48(input logic [47:0] value);
  logic found;
  leading_zeros48 = 6'd48;
  found = 1'b0;
  for (int i = 47; i >= 0; i--) begin
    if (value[i] && !found) begin
      leading_zeros48 = 6'(47 - i);
      found = 1'b1;
    end
  end
endfunction
