// The on-chip memories: the scratchpad and the accumulators, in bytes.
//
// Units read in the second half of a cycle; what is written becomes visible with the next cycle. The scratchpad is divided
// into banks, one after the other. A port of a bank serves one unit in a cycle, and nothing decides between units: a program
// in which more of them come to a bank than it has ports is at fault, and is stopped.

module memory
  import machine_pkg::*;
#(
    parameter int SCRATCHPAD_BYTES = 65536,
    parameter int BANKS = 1,
    parameter int READ_PORTS = UNITS,
    parameter int WRITE_PORTS = UNITS,
    parameter int ACCUMULATOR_BYTES = 1024
) (
    input longint unsigned now
);
  logic [7:0] scratchpad[SCRATCHPAD_BYTES]  /*verilator public_flat_rd*/;
  logic [7:0] accumulators[ACCUMULATOR_BYTES]  /*verilator public_flat_rd*/;

  localparam int BANK_BYTES = SCRATCHPAD_BYTES / BANKS;

  // Units that read and write each bank, and the cycle in which they do.
  logic [UNITS-1:0] readers[BANKS];
  logic [UNITS-1:0] writers[BANKS];
  longint unsigned readers_in[BANKS];
  longint unsigned writers_in[BANKS];

  // Takes a port for reading a byte of the scratchpad.
  function automatic void read_port(input int unit, input longint at);
    int bank;
    bank = int'(at) / BANK_BYTES;
    if (READ_PORTS < UNITS) begin
      if (readers_in[bank] != now) readers[bank] = '0;
      readers_in[bank] = now;
      readers[bank][unit] = 1'b1;
      if ($countones(readers[bank]) > READ_PORTS)
        $fatal(
            1, "bank %0d is read by more units than it has ports in cycle %0d: %b", bank, now, readers[bank]);
    end
  endfunction

  // Takes a port for writing one.
  function automatic void write_port(input int unit, input longint at);
    int bank;
    bank = int'(at) / BANK_BYTES;
    if (WRITE_PORTS < UNITS) begin
      if (writers_in[bank] != now) writers[bank] = '0;
      writers_in[bank] = now;
      writers[bank][unit] = 1'b1;
      if ($countones(writers[bank]) > WRITE_PORTS)
        $fatal(
            1, "bank %0d is written by more units than it has ports in cycle %0d: %b", bank, now, writers[bank]);
    end
  endfunction

  // An element of `bits` at a place counted in nibbles, for a unit.
  function automatic longint unsigned read(input int unit, input int which, input longint nibble, input int bits);
    logic [7:0] packed_pair;
    read = 0;
    if (bits == 4) begin
      packed_pair = byte_at(unit, which, nibble >> 1);
      read[3:0] = nibble[0] ? packed_pair[7:4] : packed_pair[3:0];
    end else begin
      for (int i = 0; i < bits / 8; i++) read[i*8+:8] = byte_at(unit, which, (nibble >> 1) + longint'(i));
    end
  endfunction

  task automatic write(input int unit, input int which, input longint nibble, input int bits,
                       input longint unsigned value);
    logic [7:0] packed_pair;
    if (bits == 4) begin
      // The other half of the byte is kept by the memory itself.
      packed_pair = which == 0 ? scratchpad[int'(nibble>>1)] : accumulators[int'(nibble>>1)];
      if (nibble[0]) packed_pair[7:4] = value[3:0];
      else packed_pair[3:0] = value[3:0];
      write_byte(unit, which, nibble >> 1, packed_pair);
    end else begin
      for (int i = 0; i < bits / 8; i++) write_byte(unit, which, (nibble >> 1) + longint'(i), value[i*8+:8]);
    end
  endtask

  function automatic logic [7:0] byte_at(input int unit, input int which, input longint at);
    if (which == 0) read_port(unit, at);
    return which == 0 ? scratchpad[int'(at)] : accumulators[int'(at)];
  endfunction

  task automatic write_byte(input int unit, input int which, input longint at, input logic [7:0] value);
    if (which == 0) write_port(unit, at);
    if (which == 0) scratchpad[int'(at)] = value;
    else accumulators[int'(at)] = value;
  endtask

  initial begin
    for (int i = 0; i < BANKS; i++) begin
      readers_in[i] = '1;
      writers_in[i] = '1;
    end
    for (int i = 0; i < SCRATCHPAD_BYTES; i++) scratchpad[i] = 0;
    for (int i = 0; i < ACCUMULATOR_BYTES; i++) accumulators[i] = 0;
  end
endmodule
