// One superlane's part of a slice of memory.
//
// What is read goes through LATENCY registers to its stream; what is written goes through as many before it is in the
// storage, and may not be read on the way.

module slice
  import lpu_pkg::*;
#(
    parameter int SUPERLANES = 1,
    parameter int LANES = 4,
    parameter int STREAMS = 8,
    parameter int BANKS = 1,
    parameter int WORDS = 16,
    parameter int LATENCY = 1
) (
    input logic clk,
    input logic loading,
    input logic dumping,
    input int unsigned queue,
    input int unsigned superlane,
    input longint unsigned now,
    input dispatch_t instruction,
    input logic [2*STREAMS-1:0] valid,
    input logic [2*STREAMS-1:0][8*LANES-1:0] data,
    output logic [2*STREAMS-1:0] taken,
    output logic drive,
    output logic [5:0] place,
    output logic [8*LANES-1:0] vector,
    output logic busy
);
  /*verilator no_inline_module*/
  `include "streams.svh"

  // The cycle in superlane 0.
  longint unsigned cycle;
  assign cycle = now - longint'(superlane);

  localparam int VECTORS = BANKS * WORDS;

  logic [W-1:0] storage[VECTORS];

  // Reads and writes of this cycle, and those in flight; number i is i cycles old.
  typedef struct packed {
    logic valid;
    logic [5:0] place;
    logic [W-1:0] vector;
  } read_t;
  typedef struct packed {
    logic valid;
    logic [31:0] address;
    logic [W-1:0] vector;
  } write_t;
  read_t read, reads[1:LATENCY];
  write_t write, writes[1:LATENCY];
  logic [LATENCY:1] works = '0;

  logic is_mem, is_gather;
  operand_t from, to;
  logic [15:0] gathered;
  assign is_mem = instruction.valid && opcode_of(instruction.word[0]) == OP_MEM;
  assign is_gather = instruction.valid && opcode_of(instruction.word[0]) == OP_GATHER;
  assign from = instruction.word[3][31:16];
  assign to = instruction.word[3][15:0];

  // Operands of a gather are the other way round: addresses, destination.
  assign gathered = {data[place_of(to, 1)][7:0], data[place_of(to, 0)][7:0]};

  always_comb begin
    taken = '0;
    if (is_mem && instruction.word[0][9]) taken = taken_by(from, 1);
    if (is_gather) taken = taken_by(to, 2);
    read.valid = is_gather || (is_mem && instruction.word[0][8]);
    write.valid = is_mem && instruction.word[0][9];
    write.address = instruction.word[2];
    write.vector = data[place_of(from, 0)];
    if (is_gather) begin
      read.place = place_of(from, 0);
      read.vector = storage[int'(gathered)<VECTORS?int'(gathered) : VECTORS-1];
    end else begin
      read.place = place_of(to, 0);
      read.vector = storage[instruction.word[1]<VECTORS?instruction.word[1] : 0];
    end
  end

  assign drive = reads[LATENCY].valid;
  assign place = reads[LATENCY].place;
  assign vector = reads[LATENCY].vector;

  // An instruction is at work from its dispatch until its vector is there.
  assign busy = instruction.valid || (works & ~(LATENCY'(1) << (LATENCY - 1))) != '0;

  task automatic check_address(input logic [31:0] address);
    if (address >= VECTORS)
      $fatal(1, "beyond the last address: %0d in queue %0d, cycle %0d", address, queue, cycle);
  endtask

  task automatic check_visible(input logic all, input logic [31:0] address);
    for (int age = 1; age < LATENCY; age++) begin
      if (writes[age].valid && (all || writes[age].address == address))
        $fatal(1, "too early: queue %0d reads what it wrote %0d cycles before to %0d, cycle %0d", queue, age,
               writes[age].address, cycle);
    end
  endtask

  function automatic longint unsigned index_of(input int address, input int lane);
    return ((longint'(queue) * VECTORS + longint'(address)) * SUPERLANES + longint'(superlane)) * LANES + longint'(lane);
  endfunction

  task automatic load_storage();
    for (int address = 0; address < VECTORS; address++)
      for (int lane = 0; lane < LANES; lane++)
        storage[address][8*lane+:8] = 8'(first_byte(index_of(address, lane)));
  endtask

  task automatic dump_storage();
    for (int address = 0; address < VECTORS; address++)
      for (int lane = 0; lane < LANES; lane++) last_byte(index_of(address, lane), 32'(storage[address][8*lane+:8]));
  endtask

  initial begin
    for (int age = 1; age <= LATENCY; age++) begin
      reads[age] = '0;
      writes[age] = '0;
    end
  end

  always_ff @(posedge clk) begin
    reads[1] <= read;
    writes[1] <= write;
    for (int age = 2; age <= LATENCY; age++) begin
      reads[age] <= reads[age-1];
      writes[age] <= writes[age-1];
    end
    works <= LATENCY'({works, is_mem || is_gather});
    // What is read in this cycle has left the storage already.
    if (LATENCY == 1) begin
      if (write.valid) storage[write.address] = write.vector;
    end else begin
      if (writes[LATENCY-1].valid) storage[writes[LATENCY-1].address] = writes[LATENCY-1].vector;
    end
    if (instruction.valid) check_own(queue, cycle, instruction.word[0], is_mem || is_gather);
    if (is_mem && instruction.word[0][8]) begin
      check_exists(queue, cycle, to, 1);
      check_address(instruction.word[1]);
      check_visible(0, instruction.word[1]);
    end
    if (is_mem && instruction.word[0][9]) begin
      check_read(queue, cycle, valid, from, 1);
      check_address(instruction.word[2]);
    end
    if (is_mem && instruction.word[0][9:8] == 2'b11 && instruction.word[1] / WORDS == instruction.word[2] / WORDS)
      $fatal(1, "bank conflict: queue %0d reads and writes bank %0d, cycle %0d", queue, instruction.word[1] / WORDS,
             cycle);
    if (is_gather) begin
      check_read(queue, cycle, valid, to, 2);
      check_exists(queue, cycle, from, 1);
      check_visible(1, 0);
    end
    // The test bench fills the storage before the first cycle and reads it after the last.
    if (loading) load_storage();
    if (dumping) dump_storage();
  end
endmodule
