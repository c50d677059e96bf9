// The on-chip memories: the scratchpad and the accumulators, in bytes.
//
// Units read in the second half of a cycle; what is written becomes visible with the next cycle.

module memory #(
    parameter int SCRATCHPAD_BYTES = 65536,
    parameter int ACCUMULATOR_BYTES = 1024
);
  logic [7:0] scratchpad[SCRATCHPAD_BYTES]  /*verilator public_flat_rd*/;
  logic [7:0] accumulators[ACCUMULATOR_BYTES]  /*verilator public_flat_rd*/;

  // An element of `bits` at a place counted in nibbles.
  function automatic longint unsigned read(input int which, input longint nibble, input int bits);
    logic [7:0] packed_pair;
    read = 0;
    if (bits == 4) begin
      packed_pair = byte_at(which, nibble >> 1);
      read[3:0] = nibble[0] ? packed_pair[7:4] : packed_pair[3:0];
    end else begin
      for (int i = 0; i < bits / 8; i++) read[i*8+:8] = byte_at(which, (nibble >> 1) + longint'(i));
    end
  endfunction

  task automatic write(input int which, input longint nibble, input int bits, input longint unsigned value);
    logic [7:0] packed_pair;
    if (bits == 4) begin
      packed_pair = byte_at(which, nibble >> 1);
      if (nibble[0]) packed_pair[7:4] = value[3:0];
      else packed_pair[3:0] = value[3:0];
      write_byte(which, nibble >> 1, packed_pair);
    end else begin
      for (int i = 0; i < bits / 8; i++) write_byte(which, (nibble >> 1) + longint'(i), value[i*8+:8]);
    end
  endtask

  function automatic logic [7:0] byte_at(input int which, input longint at);
    return which == 0 ? scratchpad[int'(at)] : accumulators[int'(at)];
  endfunction

  task automatic write_byte(input int which, input longint at, input logic [7:0] value);
    if (which == 0) scratchpad[int'(at)] = value;
    else accumulators[int'(at)] = value;
  endtask

  initial begin
    for (int i = 0; i < SCRATCHPAD_BYTES; i++) scratchpad[i] = 0;
    for (int i = 0; i < ACCUMULATOR_BYTES; i++) accumulators[i] = 0;
  end
endmodule
