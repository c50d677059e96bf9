// Where registers stand in a pipelined operator: its logic can be cut in so many places, and its registers are spread evenly
// over them. How many stand in one; the last is behind the result.
function automatic int cut(input int latency, input int cuts, input int place);
  cut = ((place + 1) * latency) / cuts - (place * latency) / cuts;
endfunction
