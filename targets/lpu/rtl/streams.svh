// The streams at one position of one superlane, as a unit there sees them: eastward ones first, then westward ones. What
// includes this has the parameters STREAMS and LANES, the streams `valid` and `data`, and `superlane` and `now`.

localparam int N = 2 * STREAMS;
localparam int W = 8 * LANES;

// The place of the stream that lies so many behind the first.
function automatic logic [5:0] place_of(input operand_t operand, input int offset);
  place_of = 6'(operand.number) + 6'(offset);
  if (operand.direction) place_of = place_of + 6'(STREAMS);
endfunction

// A set of consecutive streams.
function automatic logic [N-1:0] set_of(input operand_t operand, input int count);
  return (~(~N'(0) << count)) << place_of(operand, 0);
endfunction

// The set that an operand takes, if it is a stream.
function automatic logic [N-1:0] taken_by(input operand_t operand, input int count);
  taken_by = '0;
  if (int'(operand.kind) == KIND_STREAM && operand.take) taken_by = set_of(operand, count);
endfunction

// Stops where streams do not exist.
task automatic check_exists(input int unsigned queue, input operand_t operand, input int count);
  if (int'(operand.kind) != KIND_STREAM || int'(operand.number) + count > STREAMS)
    $fatal(1, "beyond the last stream: queue %0d, cycle %0d", queue, now - longint'(superlane));
endtask

// Stops where there is nothing on streams that are read.
task automatic check_read(input int unsigned queue, input operand_t operand, input int count);
  check_exists(queue, operand, count);
  if ((set_of(operand, count) & ~valid) != '0)
    $fatal(1, "nothing there: queue %0d reads streams of which %b carry nothing, cycle %0d", queue,
           set_of(operand, count) & ~valid, now - longint'(superlane));
endtask

// Stops at an instruction that the unit does not know.
task automatic check_own(input int unsigned queue, input dispatch_t instruction, input logic known);
  if (!known && !asks_nothing(instruction))
    $fatal(1, "not this queue's: operation %0d in queue %0d, cycle %0d", opcode_of(instruction), queue,
           now - longint'(superlane));
endtask
