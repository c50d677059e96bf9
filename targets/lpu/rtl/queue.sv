// The queue of a functional unit, which dispatches at most one instruction in a cycle.
//
// It reads ahead: in each cycle it finds what is dispatched in the next, so that a repeat takes no time. `running` is low
// for the edge before cycle 0.

module queue
  import lpu_pkg::*;
#(
    parameter int NOTIFY_LATENCY = 1
) (
    input logic clk,
    input logic running,
    input int unsigned number,
    input longint unsigned now,
    // Some queue dispatched a notify NOTIFY_LATENCY - 1 cycles ago.
    input logic notified,
    output dispatch_t dispatched,
    output logic ended
);
  /*verilator no_inline_module*/

  // The next instruction.
  int unsigned next = 0;
  // Cycles until it is dispatched, or until the one before is repeated, so many times.
  int unsigned delay = 1;
  int unsigned repeats = 0;
  int unsigned interval = 1;
  int step = 0;
  // Stands at a sync, and for how many cycles, as far as that matters.
  logic standing = 0;
  int unsigned stood = 0;

  initial begin
    dispatched = '0;
    ended = 0;
  end

  // The next cycle, of which this one decides.
  longint unsigned coming;
  assign coming = running ? now + 1 : 0;

  function automatic int opcode_at(input int unsigned index);
    opcode_at = 0;
    if (index < queue_length(number)) opcode_at = int'(queue_word(number, index, 0) & 32'hff);
  endfunction

  // Goes to the next instruction.
  task automatic fetch();
    int opcode;
    int unsigned first;
    if (next >= queue_length(number)) $fatal(1, "runs dry: queue %0d, cycle %0d", number, coming);
    opcode = opcode_at(next);
    first = queue_word(number, next, 1);
    next <= next + 1;
    delay <= 1;
    case (opcode)
      OP_NOP: begin
        delay <= first;
        if (first == 0) $fatal(1, "malformed: nop of no cycle in queue %0d, cycle %0d", number, coming);
      end
      OP_REPEAT: $fatal(1, "malformed: repeat of nothing in queue %0d, cycle %0d", number, coming);
      OP_SYNC: begin
        standing <= 1;
        stood <= 0;
      end
      default: begin
        dispatched.valid <= 1;
        for (int word = 0; word < 4; word++) dispatched.word[word] <= queue_word(number, next, word);
        if (opcode == OP_END) ended <= 1;
        if (opcode != OP_END && opcode_at(next + 1) == OP_REPEAT) begin
          next <= next + 2;
          repeats <= queue_word(number, next + 1, 1);
          delay <= queue_word(number, next + 1, 2);
          interval <= queue_word(number, next + 1, 2);
          step <= queue_word(number, next + 1, 3);
          if (queue_word(number, next + 1, 1) == 0 || queue_word(number, next + 1, 2) == 0)
            $fatal(1, "malformed: repeat of nothing or at once in queue %0d, cycle %0d", number, coming);
        end
      end
    endcase
  endtask

  // Dispatches the last instruction once more.
  task automatic again();
    dispatched.valid <= 1;
    case (opcode_of(dispatched.word[0]))
      OP_MEM: begin
        dispatched.word[1] <= dispatched.word[1] + step;
        dispatched.word[2] <= dispatched.word[2] + step;
      end
      OP_LOAD: dispatched.word[2] <= dispatched.word[2] + step;
      OP_ACCUMULATE: dispatched.word[1] <= dispatched.word[1] + step;
      default: ;
    endcase
    repeats <= repeats - 1;
    delay <= repeats == 1 ? 1 : interval;
  endtask

  always_ff @(posedge clk) begin
    dispatched.valid <= 0;
    if (ended) begin
      // There is nothing behind an end.
    end else if (standing) begin
      if (stood < NOTIFY_LATENCY) stood <= stood + 1;
      // A notify in the cycle of the sync or before it is none for it.
      if (notified && stood >= NOTIFY_LATENCY) begin
        standing <= 0;
        fetch();
      end
    end else if (delay > 1) begin
      delay <= delay - 1;
    end else if (repeats != 0) begin
      again();
    end else begin
      fetch();
    end
  end
endmodule
