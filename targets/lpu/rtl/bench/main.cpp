// Runs programs on the LPU in SystemVerilog.
//
//   Vlpu JOBS
//
// JOBS is a text file; each line is one program to run from the machine's reset on:
//
//   PROGRAM MEMORY LIMIT RESULT
//
// PROGRAM is the binary form of a program; MEMORY are the bytes of all slices of memory, vector by vector. The run ends with the
// program, or is given up where it takes more than LIMIT cycles. RESULT gets the number of cycles (8 bytes, little-endian; all
// ones if the limit was reached), for each dispatch of an operation, in the order of cycles, then of queues, the queue (2
// bytes) and the cycle (8 bytes), closed by two bytes 255, then the bytes of all memory, and the words of all accumulators.
//
// A job whose program is at fault has no RESULT, but a file RESULT.failure with the machine's message. Every job has a process
// of its own, so that this does not touch the others.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "Vlpu.h"
#include "svdpi.h"
#include "verilated.h"

namespace {

using Bytes = std::vector<uint8_t>;

// Words of an instruction.
constexpr size_t INSTRUCTION_WORDS = 4;

Bytes memory;
std::vector<uint32_t> words, accumulators;
std::string dispatches;
// Where the instructions of each queue begin, in words; one more, where the last end.
std::vector<size_t> queues;

[[noreturn]] void unusable(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

Bytes read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) unusable("cannot read " + path);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

void put(std::string& bytes, uint64_t value, int count) {
  for (int i = 0; i < count; i++) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

void load_program(const Bytes& bytes) {
  words.assign(bytes.size() / 4, 0);
  for (size_t i = 0; i < 4 * words.size(); i++) words[i / 4] |= static_cast<uint32_t>(bytes[i]) << (8 * (i % 4));
  const size_t count = words.empty() ? 0 : words[0];
  if (count >= words.size()) unusable("malformed: the program ends within its head");
  queues.assign(1, 1 + count);
  for (size_t i = 0; i < count; i++) queues.push_back(queues.back() + INSTRUCTION_WORDS * words[1 + i]);
  if (queues.back() != words.size()) unusable("malformed: the program has another length than its head says");
}

// One edge of the clock, and what comes of it.
void edge(Vlpu& machine) {
  machine.clk = 0;
  machine.eval();
  machine.clk = 1;
  machine.eval();
}

void run(uint64_t limit, const std::string& result) {
  auto context = std::make_unique<VerilatedContext>();
  auto machine = std::make_unique<Vlpu>(context.get());
  machine->running = 0;
  machine->dumping = 0;
  // One edge resets and finds what is dispatched in cycle 0. From then on each turn of the loop is a cycle.
  edge(*machine);
  if (machine->queues + 1 != queues.size()) unusable("malformed: the program has other queues than the machine");
  machine->running = 1;
  machine->eval();
  // The machine sees that it is done a cycle after the last that counts.
  while (!machine->done && machine->now <= limit + 1) edge(*machine);
  const bool ended = machine->done && machine->cycles <= limit;
  std::string bytes;
  put(bytes, ended ? machine->cycles : UINT64_MAX, 8);
  bytes += dispatches;
  put(bytes, 0xffff, 2);
  machine->dumping = 1;
  edge(*machine);
  bytes.append(memory.begin(), memory.end());
  for (uint32_t word : accumulators) put(bytes, word, 4);
  std::ofstream(result, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// Runs a job in a process of its own. What it writes to its outputs is why it fails, if it does.
void run_apart(const std::string& program, const std::string& memory_path, uint64_t limit, const std::string& result) {
  const std::string failure = result + ".failure";
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) unusable("cannot start a process");
  if (child == 0) {
    if (!std::freopen(failure.c_str(), "w", stdout) || dup2(fileno(stdout), STDERR_FILENO) < 0) std::_Exit(1);
    load_program(read_file(program));
    memory = read_file(memory_path);
    run(limit, result);
    std::exit(0);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child) unusable("cannot wait for a process");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) std::remove(failure.c_str());
}

}  // namespace

// What `$fatal` does once it has written its message.
void vl_stop(const char*, int, const char*) {
  std::fflush(nullptr);
  std::_Exit(1);
}

extern "C" unsigned int queue_length(unsigned int queue) {
  if (queue + 1 >= queues.size()) return 0;
  return static_cast<unsigned int>((queues[queue + 1] - queues[queue]) / INSTRUCTION_WORDS);
}

extern "C" unsigned int queue_word(unsigned int queue, unsigned int index, unsigned int word) {
  if (index >= queue_length(queue)) return 0;
  return words[queues[queue] + INSTRUCTION_WORDS * index + word];
}

extern "C" void note_dispatch(unsigned int queue, unsigned long long cycle) {
  put(dispatches, queue, 2);
  put(dispatches, cycle, 8);
}

extern "C" unsigned int first_byte(unsigned long long index) {
  if (index >= memory.size()) unusable("there is less in the file of memory than the machine has");
  return memory[index];
}

extern "C" void last_byte(unsigned long long index, unsigned int value) {
  memory[index] = static_cast<uint8_t>(value);
}

extern "C" void last_word(unsigned long long index, unsigned int value) {
  if (index >= accumulators.size()) accumulators.resize(index + 1);
  accumulators[index] = value;
}

int main(int argc, char** argv) {
  if (argc != 2) unusable("usage: Vlpu JOBS");
  std::ifstream jobs(argv[1]);
  std::string line;
  while (std::getline(jobs, line)) {
    std::istringstream parts(line);
    std::string program, memory_path, result;
    uint64_t limit = 0;
    if (!(parts >> program >> memory_path >> limit >> result)) unusable("not a job: " + line);
    run_apart(program, memory_path, limit, result);
  }
  return 0;
}
