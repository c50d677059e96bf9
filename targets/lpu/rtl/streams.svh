// The streams at one position of one superlane, as a unit there sees them: eastward ones first, then westward ones. What
// includes this has the parameters STREAMS and LANES.

localparam int N = 2 * STREAMS;
localparam int W = 8 * LANES;

// The place of the stream that lies so many behind the first.
function automatic logic [5:0] place_of(input operand_t operand, input int offset);
  place_of = 6'(operand.number) + 6'(offset);
  if (operand.direction) place_of = place_of + 6'(STREAMS);
endfunction

// A set of consecutive streams.
function automatic logic [N-1:0] set_of(input operand_t operand, input int count);
  /*verilator no_inline_task*/
  return (~(~N'(0) << count)) << place_of(operand, 0);
endfunction

// The set that an operand takes, if it is a stream.
function automatic logic [N-1:0] taken_by(input operand_t operand, input int count);
  taken_by = '0;
  if (int'(operand.kind) == KIND_STREAM && operand.take) taken_by = set_of(operand, count);
endfunction

// Stops where streams do not exist.
task automatic check_exists(
    input int unsigned queue, input longint unsigned cycle, input operand_t operand, input int count);
  /*verilator no_inline_task*/
  if (int'(operand.kind) != KIND_STREAM || int'(operand.number) + count > STREAMS)
    $fatal(1, "beyond the last stream: queue %0d, cycle %0d", queue, cycle);
endtask

// Stops where there is nothing on streams that are read.
task automatic check_read(
    input int unsigned queue, input longint unsigned cycle, input logic [N-1:0] valid, input operand_t operand,
    input int count);
  /*verilator no_inline_task*/
  check_exists(queue, cycle, operand, count);
  if ((set_of(operand, count) & ~valid) != '0)
    $fatal(1, "nothing there: queue %0d reads streams of which %b carry nothing, cycle %0d", queue,
           set_of(operand, count) & ~valid, cycle);
endtask
