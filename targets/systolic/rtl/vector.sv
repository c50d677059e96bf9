// The vector unit, with the scalar unit beside it. Behavioural as to its arithmetic, real as to its time.
//
// In every cycle each of up to `side` sublanes takes up to `rate` elements along the innermost dimension of the nest; a row of
// the nest begins in a sublane of its own. Results are written LATENCY cycles after their elements were taken, those of a fold later by as many cycles
// as its tree has levels.

module vector
  import lanes_pkg::*;
  import machine_pkg::*;
#(
    parameter int LANES = 8,
    parameter int SPECIAL_LANES = 2,
    parameter int SUBLANES = 1,
    parameter int STRIDED_LANES = 4,
    parameter int LATENCY = 3
) (
    input logic clk,
    input longint unsigned now,
    input logic start,
    input logic working,
    input instruction_t instruction,
    output logic last
);
  // Results on their way.
  typedef struct packed {
    longint unsigned due;
    int memory;
    longint nibble;
    int bits;
    longint unsigned value;
  } result_t;
  result_t results[$];

  // Operands: the destination is number 0. Each walks through a memory (kind 0), or is one number; steps are in nibbles.
  int operand_kind[4];
  int operand_memory[4];
  int operand_dtype[4];
  longint operand_nibble[4];
  longint operand_step[32];
  longint unsigned operand_number[4];
  int count;

  int opcode, kind, fn;
  int rank, reduced;
  longint unsigned size[8];
  // What a sort is told, and how many elements of a row it keeps.
  logic accumulate, exclusive, greatest_first, later_first, has_values, has_positions;
  longint unsigned kept;

  // The class in which is computed, and the type whose class that is.
  int klass, computed;

  // Elements of the nest, how many have been taken, how long its innermost rows are once dimensions are joined.
  longint unsigned elements, taken, inner;
  longint unsigned rate, side;
  longint unsigned cycle, cycles;

  // Partial results of a fold, by lane; elements of each result.
  longint unsigned partial[];
  longint unsigned folded;
  int lanes;
  longint unsigned running;

  // Reads an operand at a word; gives the next word.
  function automatic int read_operand(input int which, input int word);
    int unsigned first;
    int bits;
    first = word_of(instruction, word);
    operand_kind[which] = int'(first[7:0]);
    if (operand_kind[which] != 0) begin
      operand_number[which] = long_of(instruction, word + 1);
      for (int d = 0; d < rank; d++) operand_step[which*8+d] = 0;
      return word + 3;
    end
    operand_memory[which] = int'(first[15:8]);
    operand_dtype[which] = int'(first[23:16]);
    operand_nibble[which] = 2 * longint'(word_of(instruction, word + 1));
    bits = lane_bits(operand_dtype[which]);
    for (int d = 0; d < rank; d++) begin
      operand_step[which*8+d] = bits == 4 && d == rank - 1 ? 1 : 2 * signed_of(instruction, word + 2 + d);
    end
    return word + 2 + rank;
  endfunction

  function automatic logic walks(input int which);
    return which < count && operand_kind[which] == 0;
  endfunction

  function automatic logic any_wide();
    any_wide = 0;
    for (int o = 0; o < count; o++) if (walks(o) && lane_bits(operand_dtype[o]) == 64) any_wide = 1;
  endfunction

  // How long the innermost rows are, once neighbouring dimensions along which all operands go on alike are joined, and
  // whether an operand strides along them.
  task automatic join_rows(input logic standing_destination, output logic strided);
    longint step[4];
    logic begun, joins, stands;
    inner = 1;
    begun = 0;
    for (int d = rank - 1; d >= 0; d--) begin
      if (size[d] != 1) begin
        joins = 1;
        for (int o = 0; o < count; o++) begin
          if (walks(o) && begun && operand_step[o*8+d] != step[o] * longint'(inner)) joins = 0;
        end
        if (begun && !joins) break;
        if (!begun) for (int o = 0; o < count; o++) step[o] = operand_step[o*8+d];
        begun = 1;
        inner = inner * size[d];
      end
    end
    strided = 0;
    for (int o = 0; o < count; o++) begin
      if (walks(o) && begun) begin
        stands = step[o] == 0 && (o > 0 || standing_destination);
        if (!stands && step[o] != longint'(lane_bits(operand_dtype[o]) / 4)) strided = 1;
      end
    end
  endtask

  function automatic longint unsigned least(input longint unsigned a, input longint unsigned b);
    return a < b ? a : b;
  endfunction

  function automatic longint unsigned up(input longint unsigned a, input longint unsigned b);
    return (a + b - 1) / b;
  endfunction

  // Shares lanes among the sublanes, and counts the cycles of a walk; the scalar unit is by itself.
  task automatic share_lanes(input logic strided);
    if (strided) rate = least(rate, STRIDED_LANES);
    side = SUBLANES;
    rate = rate / side;
    if (rate == 0) rate = 1;
    if (any_wide()) begin
      rate = 1;
      side = 1;
    end
    cycles = elements == 0 ? 0 : up(elements / inner * up(inner, rate), side);
  endtask

  function automatic int log2_up(input longint unsigned value);
    log2_up = 0;
    while ((64'd1 << log2_up) < value) log2_up = log2_up + 1;
  endfunction

  // The type in which is computed: that of the first value that walks, else the widest of the number's kind.
  function automatic int computed_type(input int first, input int beyond);
    for (int o = first; o < beyond; o++) if (operand_kind[o] == 0) return operand_dtype[o];
    if (operand_kind[first] == 1) return operand_dtype[0] == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
    // Signed or unsigned 64 bits.
    return lane_class(operand_dtype[0]) == CLASS_UNSIGNED ? DTYPE_U64 : DTYPE_I64;
  endfunction

  // Reads the instruction.
  task automatic begin_instruction();
    int unsigned figures;
    int word, values;
    logic strided;
    figures = word_of(instruction, 0);
    opcode = int'(instruction.opcode);
    word = 1;
    reduced = 0;
    case (opcode)
      OP_MAP: begin
        kind = int'(figures[7:0]);
        fn = int'(figures[15:8]);
        rank = int'(figures[23:16]);
        count = 1 + int'(figures[31:24]);
      end
      OP_FOLD: begin
        fn = int'(figures[7:0]);
        rank = int'(figures[15:8]);
        reduced = int'(figures[23:16]);
        count = 1 + int'(figures[27:24]);
        accumulate = figures[28];
      end
      OP_SCAN: begin
        rank = int'(figures[7:0]);
        exclusive = figures[8];
        count = 2;
      end
      default: begin
        rank = int'(figures[7:0]);
        greatest_first = figures[8];
        later_first = figures[9];
        has_values = figures[10];
        has_positions = figures[11];
        kept = word_of(instruction, 1);
        word = 2;
        count = 3;
      end
    endcase
    elements = 1;
    for (int d = 0; d < rank; d++) begin
      size[d] = word_of(instruction, word + d);
      elements = elements * size[d];
    end
    word = word + rank;
    if (opcode == OP_SORT) begin
      // The source is operand 0 here, values 1, positions 2.
      word = read_operand(0, word);
      operand_kind[1] = 3;
      operand_kind[2] = 3;
      if (has_values) word = read_operand(1, word);
      if (has_positions) word = read_operand(2, word);
    end else begin
      for (int o = 0; o < count; o++) word = read_operand(o, word);
    end
    taken = 0;
    cycle = 0;
    side = 1;
    case (opcode)
      OP_MAP: begin
        values = kind == MAP_SELECT ? 2 : 1;
        computed = computed_type(values, count);
        join_rows(0, strided);
        rate = lane_is_special(kind, fn) != 0 ? least(LANES, SPECIAL_LANES) : LANES;
        share_lanes(strided);
      end
      OP_FOLD: begin
        computed = computed_type(1, count);
        join_rows(1, strided);
        rate = LANES;
        lanes = any_wide() ? 1 : LANES;
        share_lanes(strided);
        partial = new[lanes];
        folded = 1;
        for (int d = rank - reduced; d < rank; d++) folded = folded * size[d];
        cycles = cycles + log2_up(LANES);
      end
      OP_SCAN: begin
        computed = operand_dtype[1];
        rate = any_wide() ? 1 : STRIDED_LANES;
        inner = elements;
        cycles = up(elements, rate);
      end
      default: begin
        computed = operand_dtype[0];
        sort_cycles();
      end
    endcase
    klass = lane_class(computed);
    if (cycles == 0) cycles = 1;
  endtask

  // Rows of a sort take turns in a network; `rate` is cycles of a row here.
  task automatic sort_cycles();
    longint unsigned levels;
    inner = size[rank-1];
    levels = log2_up(inner);
    if (levels == 0) levels = 1;
    rate = up(inner, lane_bits(computed) == 64 ? 1 : LANES) * (levels * (levels + 1) / 2);
    cycles = elements == 0 ? 0 : elements / inner * rate;
  endtask

  // Where operand `which` stands at an element, over a nest whose innermost size is `innermost`.
  function automatic longint place(input int which, input longint unsigned element, input longint unsigned innermost);
    longint unsigned index, steps;
    place = operand_nibble[which];
    index = element;
    for (int d = rank - 1; d >= 0; d--) begin
      steps = d == rank - 1 ? innermost : size[d];
      place = place + longint'(index % steps) * operand_step[which*8+d];
      index = index / steps;
    end
  endfunction

  function automatic longint unsigned bits_at(input int which, input longint unsigned element);
    return systolic.memory.read(
        VECTOR, operand_memory[which], place(which, element, rank == 0 ? 1 : size[rank-1]), lane_bits(operand_dtype[which]));
  endfunction

  // An operand's element as a number of a class.
  function automatic longint unsigned number_at(input int which, input longint unsigned element, input int as_class);
    case (operand_kind[which])
      0: return lane_load(operand_dtype[which], as_class, bits_at(which, element));
      1: return lane_float(as_class, operand_number[which]);
      default: return lane_integer(as_class, operand_number[which]);
    endcase
  endfunction

  task automatic deliver(input int which, input longint nibble, input longint unsigned value, input int later);
    result_t result;
    result.due = now + LATENCY + longint'(later);
    result.memory = operand_memory[which];
    result.nibble = nibble;
    result.bits = lane_bits(operand_dtype[which]);
    result.value = value;
    results.push_back(result);
  endtask

  // One element of an element-wise instruction.
  task automatic map_element(input longint unsigned element);
    longint unsigned value;
    int to;
    to = operand_dtype[0];
    if (kind == MAP_COPY && operand_kind[1] == 0 && operand_dtype[1] == to) begin
      value = bits_at(1, element);
    end else begin
      case (kind)
        MAP_COPY: value = lane_encode(klass, number_at(1, element, klass), to);
        MAP_UNARY: value = lane_encode(
            klass, lane_unary(klass, fn, number_at(1, element, klass), int'(computed == DTYPE_BOOL)), to);
        MAP_BINARY:
        if (lane_is_comparison(fn) != 0)
          value = lane_encode(
              CLASS_UNSIGNED,
              longint'(lane_compare(klass, fn, number_at(1, element, klass), number_at(2, element, klass))), to);
        else
          value = lane_encode(
              klass,
              lane_binary(klass, fn, number_at(1, element, klass), number_at(2, element, klass), lane_bits(computed)),
              to);
        default:
        value = lane_encode(
            klass, number_at(number_at(1, element, CLASS_UNSIGNED) != 0 ? 2 : 3, element, klass), to);
      endcase
    end
    deliver(0, place(0, element, rank == 0 ? 1 : size[rank-1]), value, 0);
  endtask

  // One element of a fold: the lanes take turns, and with the last element of a result they are combined in halves.
  task automatic fold_element(input longint unsigned element);
    longint unsigned value, at;
    int lane, width;
    at = element % folded;
    if (at == 0) for (int l = 0; l < lanes; l++) partial[l] = lane_neutral(klass, fn, computed);
    value = number_at(1, element, klass);
    if (fn == FOLD_DOT) value = lane_binary(klass, MUL, value, number_at(2, element, klass), lane_bits(computed));
    lane = int'(at % longint'(lanes));
    partial[lane] = lane_combine(klass, fn, partial[lane], value);
    if (at == folded - 1) begin
      width = 1 << log2_up(longint'(lanes));
      while (width > 1) begin
        width = width / 2;
        for (int l = 0; l < width && l + width < lanes; l++)
          if (longint'(l + width) < longint'(folded)) partial[l] = lane_combine(klass, fn, partial[l], partial[l+width]);
      end
      value = partial[0];
      if (accumulate) value = lane_combine(klass, fn, number_at(0, element, klass), value);
      deliver(0, place(0, element, rank == 0 ? 1 : size[rank-1]), lane_encode(klass, value, operand_dtype[0]),
              log2_up(LANES));
    end
  endtask

  task automatic scan_element(input longint unsigned element);
    longint unsigned sum_so_far;
    if (element % size[rank-1] == 0) running = lane_neutral(klass, FOLD_SUM, computed);
    sum_so_far = running;
    running = lane_combine(klass, FOLD_SUM, running, number_at(1, element, klass));
    deliver(0, place(0, element, size[rank-1]),
            lane_encode(klass, exclusive ? sum_so_far : running, operand_dtype[0]), 0);
  endtask

  // Sorts a row, by insertion, and delivers what is kept of it.
  task automatic sort_row(input longint unsigned row);
    longint unsigned value[];
    longint unsigned position[];
    longint unsigned v, p;
    longint at;
    int order;
    value = new[inner];
    position = new[inner];
    for (longint unsigned i = 0; i < inner; i++) begin
      v = number_at(0, row * inner + i, klass);
      p = i;
      at = longint'(i);
      while (at > 0) begin
        order = lane_order(klass, value[at-1], v);
        if (greatest_first) order = -order;
        if (order == 0) order = later_first ? -1 : 1;
        else order = -order;
        // The one before stays before if `order` is positive.
        if (order > 0) break;
        value[at] = value[at-1];
        position[at] = position[at-1];
        at = at - 1;
      end
      value[at] = v;
      position[at] = p;
    end
    for (longint unsigned i = 0; i < kept; i++) begin
      if (has_values)
        deliver(1, place(1, row * kept + i, kept), lane_encode(klass, value[i], operand_dtype[1]), 0);
      if (has_positions)
        deliver(2, place(2, row * kept + i, kept), lane_encode(CLASS_UNSIGNED, position[i], operand_dtype[2]), 0);
    end
  endtask

  // The elements of one cycle.
  task automatic work();
    longint unsigned room;
    if (opcode == OP_SORT) begin
      if (elements != 0 && (cycle + 1) % rate == 0) sort_row(cycle / rate);
    end else begin
      for (longint unsigned s = 0; s < side && taken < elements; s++) begin
        room = least(rate, inner - taken % inner);
        for (longint unsigned i = 0; i < room; i++) begin
          case (opcode)
            OP_MAP: map_element(taken + i);
            OP_FOLD: fold_element(taken + i);
            default: scan_element(taken + i);
          endcase
        end
        taken = taken + room;
      end
    end
    cycle = cycle + 1;
  endtask

  always @(negedge clk) begin
    last = 0;
    if (start) begin_instruction();
    if (working) begin
      work();
      last = cycle == cycles;
    end
  end

  // What is due in this cycle is there in the next. Results of folds overtake nobody: the unit is taken until their tree is
  // empty.
  always @(posedge clk) begin
    while (results.size() > 0 && results[0].due <= now) begin
      systolic.memory.write(VECTOR, results[0].memory, results[0].nibble, results[0].bits, results[0].value);
      void'(results.pop_front());
    end
  end
endmodule
