// A DMA engine, from DRAM to the scratchpad or back. Behavioural as to its addresses, real as to its bursts.
//
// Every cycle it earns BYTES_PER_CYCLE; a burst costs BURST_BYTES and moves the bytes of the transfer that lie in one aligned
// block of DRAM. The data of a burst arrive LATENCY cycles after it was paid for, and the engine is free for the next
// transfer in the meantime.

module dma
  import lanes_pkg::*;
  import machine_pkg::*;
#(
    parameter bit STORES = 0,
    parameter int BURST_BYTES = 64,
    parameter int BYTES_PER_CYCLE = 16,
    parameter int LATENCY = 10
) (
    input logic clk,
    input longint unsigned now,
    input logic start,
    input logic working,
    input instruction_t instruction,
    output logic last
);
  import "DPI-C" function int unsigned dram_read(input longint unsigned address);
  import "DPI-C" function void dram_write(input longint unsigned address, input int unsigned value);

  localparam int UNIT = STORES ? STORE : LOAD;

  // Bytes on their way.
  typedef struct packed {
    longint unsigned due;
    longint unsigned to;
    logic [7:0] value;
  } arrival_t;
  arrival_t arrivals[$];

  // Elements that are combined with what DRAM holds when they arrive.
  typedef struct packed {
    longint unsigned due;
    longint unsigned to;
    longint unsigned value;
    int dtype;
    int fn;
  } update_t;
  update_t updates[$];

  longint unsigned earned;
  longint unsigned bursts;

  // A strided transfer: dimensions of more than one step, innermost first, the first `joined` of them one contiguous run.
  int dims, joined;
  longint size[8], dram_stride[8], chip_stride[8];
  longint unsigned element, run, runs;
  // The run at hand, and the first of its bytes that has not been moved.
  longint unsigned run_number, moved;

  // Rows: bursts of each, the row at hand.
  longint unsigned row_bursts, row_number, rows;

  function automatic longint scratchpad_of(input longint unsigned run_at, input longint unsigned byte_at);
    longint unsigned index;
    longint at;
    at = word_of(instruction, 2);
    index = byte_at / element;
    for (int d = 0; d < joined; d++) begin
      at = at + longint'(index % size[d]) * chip_stride[d];
      index = index / size[d];
    end
    index = run_at;
    for (int d = joined; d < dims; d++) begin
      at = at + longint'(index % size[d]) * chip_stride[d];
      index = index / size[d];
    end
    return at + longint'(byte_at % element);
  endfunction

  function automatic longint unsigned dram_of(input longint unsigned run_at);
    longint unsigned index, at;
    at = instruction.dram;
    index = run_at;
    for (int d = joined; d < dims; d++) begin
      at = at + (index % size[d]) * dram_stride[d];
      index = index / size[d];
    end
    return at;
  endfunction

  // Reads what a transfer is.
  task automatic begin_transfer();
    int unsigned figures;
    int word;
    longint unsigned steps;
    figures = word_of(instruction, 3);
    element = figures & 32'hff;
    dims = 0;
    runs = 1;
    for (int d = int'((figures >> 8) & 32'hff) - 1; d >= 0; d--) begin
      word = 4 + 4 * d;
      steps = word_of(instruction, word);
      runs = runs * steps;
      if (steps != 1) begin
        size[dims] = longint'(steps);
        dram_stride[dims] = long_of(instruction, word + 1);
        chip_stride[dims] = signed_of(instruction, word + 3);
        dims = dims + 1;
      end
    end
    joined = 0;
    run = element;
    if (runs != 0) begin
      while (joined < dims && dram_stride[joined] == longint'(run)) begin
        run = run * size[joined];
        runs = runs / size[joined];
        joined = joined + 1;
      end
    end
    run_number = 0;
    moved = 0;
  endtask

  // Moves the bytes of the run at hand that lie in the next block, which one burst brings.
  task automatic burst();
    longint unsigned from, room;
    longint chip;
    from = dram_of(run_number) + moved;
    room = BURST_BYTES - from % BURST_BYTES;
    for (longint unsigned i = 0; i < room && moved < run; i++) begin
      chip = scratchpad_of(run_number, moved);
      if (STORES) arrive(from + i, systolic.memory.byte_at(UNIT, 0, chip));
      else arrive(longint'(chip), 8'(dram_read(from + i)));
      moved = moved + 1;
    end
    if (moved == run) begin
      moved = 0;
      run_number = run_number + 1;
    end
  endtask

  task automatic arrive(input longint unsigned to, input logic [7:0] value);
    arrival_t arrival;
    arrival.due = now + LATENCY;
    arrival.to = to;
    arrival.value = value;
    arrivals.push_back(arrival);
  endtask

  function automatic longint unsigned modulo_burst(input longint unsigned value);
    return value % BURST_BYTES;
  endfunction

  // Reads what a transfer of rows is. Rows that may lie askew cost a burst more; a row that is combined with what is there is
  // read first.
  task automatic begin_rows();
    longint unsigned bytes, outer;
    int unsigned kinds;
    bytes = word_of(instruction, 3);
    outer = word_of(instruction, 8);
    kinds = word_of(instruction, 13);
    rows = outer * word_of(instruction, 12);
    row_bursts = (bytes + BURST_BYTES - 1) / BURST_BYTES;
    if (modulo_burst(instruction.dram) != 0 || modulo_burst(bytes) != 0
        || modulo_burst(long_of(instruction, 4)) != 0
        || (outer > 1 && modulo_burst(long_of(instruction, 9)) != 0))
      row_bursts = row_bursts + 1;
    if (STORES && kinds[15:8] != 0) row_bursts = 2 * row_bursts;
    row_number = 0;
  endtask

  // Moves the row at hand.
  task automatic move_row();
    longint unsigned bytes, count, chip, row;
    longint index;
    int unsigned kinds;
    int index_bits;
    longint unsigned at;
    bytes = word_of(instruction, 3);
    count = word_of(instruction, 12);
    kinds = word_of(instruction, 13);
    index_bits = lane_bits(int'(kinds[7:0]));
    index = longint'(systolic.memory.read(
        UNIT, 0, 2 * (longint'(word_of(instruction, 11)) + longint'(row_number % count) * longint'(index_bits / 8)),
        index_bits));
    if (index_bits == 32) index = longint'($signed(index[31:0]));
    if (index < 0) index = index + long_of(instruction, 6);
    row = index;
    at = instruction.dram + (row_number / count) * long_of(instruction, 9) + row * long_of(instruction, 4);
    chip = word_of(instruction, 2) + row_number * bytes;
    if (STORES && kinds[15:8] != 0) begin
      combine_row(at, chip, bytes, int'(kinds[23:16]), int'(kinds[15:8]));
    end else begin
      for (longint unsigned i = 0; i < bytes; i++) begin
        if (STORES) arrive(at + i, systolic.memory.byte_at(UNIT, 0, longint'(chip + i)));
        else arrive(chip + i, 8'(dram_read(at + i)));
      end
    end
    row_number = row_number + 1;
  endtask

  task automatic combine_row(input longint unsigned at, input longint unsigned chip, input longint unsigned bytes,
                             input int dtype, input int reduction);
    update_t update;
    longint unsigned step;
    step = lane_bits(dtype) / 8;
    for (longint unsigned i = 0; i < bytes; i = i + step) begin
      update.due = now + LATENCY;
      update.to = at + i;
      update.value = systolic.memory.read(UNIT, 0, 2 * longint'(chip + i), lane_bits(dtype));
      update.dtype = dtype;
      case (reduction)
        1: update.fn = ADD;
        2: update.fn = MUL;
        3: update.fn = MAX;
        default: update.fn = MIN;
      endcase
      updates.push_back(update);
    end
  endtask

  task automatic apply(input update_t update);
    longint unsigned old, result;
    int bits, klass;
    bits = lane_bits(update.dtype);
    klass = lane_class(update.dtype);
    old = 0;
    for (int i = 0; i < bits / 8; i++) old[i*8+:8] = 8'(dram_read(update.to + i));
    result = lane_binary(klass, update.fn, lane_load(update.dtype, klass, old),
                         lane_load(update.dtype, klass, update.value), bits);
    result = lane_encode(klass, result, update.dtype);
    for (int i = 0; i < bits / 8; i++) dram_write(update.to + i, int'(result[i*8+:8]));
  endtask

  logic by_rows;
  assign by_rows = int'(instruction.opcode) == OP_LOAD_ROWS || int'(instruction.opcode) == OP_STORE_ROWS;

  always @(negedge clk) begin
    last = 0;
    if (start) begin
      earned = 0;
      bursts = 0;
      if (by_rows) begin_rows();
      else begin_transfer();
    end
    if (working) begin
      earned = earned + BYTES_PER_CYCLE;
      if (by_rows) begin
        while (row_number < rows && earned >= (bursts + row_bursts) * BURST_BYTES) begin
          bursts = bursts + row_bursts;
          move_row();
        end
        last = row_number == rows;
      end else begin
        while (run_number < runs && earned >= (bursts + 1) * BURST_BYTES) begin
          bursts = bursts + 1;
          burst();
        end
        last = run_number == runs;
      end
    end
  end

  // What arrives in this cycle is there in the next.
  always @(posedge clk) begin
    while (arrivals.size() > 0 && arrivals[0].due <= now) begin
      if (STORES) dram_write(arrivals[0].to, int'(arrivals[0].value));
      else systolic.memory.write_byte(UNIT, 0, longint'(arrivals[0].to), arrivals[0].value);
      void'(arrivals.pop_front());
    end
    while (updates.size() > 0 && updates[0].due <= now) begin
      apply(updates[0]);
      void'(updates.pop_front());
    end
  end
endmodule
