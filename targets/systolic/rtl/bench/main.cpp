// Runs programs on the machine in SystemVerilog.
//
//   Vsystolic JOBS
//
// JOBS is a text file; each line is one program to run from the machine's reset on:
//
//   PROGRAM WEIGHTS BASE MEMORY LIMIT RESULT
//
// PROGRAM is the binary form of a program; WEIGHTS are the bytes of DRAM from address 0 on; MEMORY are those from BASE on.
// The run ends with the program, or with cycle LIMIT. RESULT gets the number of cycles (8 bytes, little-endian; all ones if
// the limit was reached), for each instruction in the order in which they started its unit (1 byte) and the cycle of its
// start (8 bytes), closed by a byte 255, then the bytes of MEMORY, of the scratchpad and of the accumulators.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "Vsystolic.h"
#include "Vsystolic___024root.h"
#include "svdpi.h"
#include "verilated.h"

namespace {

using Bytes = std::vector<uint8_t>;

Bytes program, weights, memory;
uint64_t base;

Bytes read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    std::exit(1);
  }
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

// A program that leaves DRAM is at fault, or the machine is; the run is over either way.
[[noreturn]] void outside(const char* what, uint64_t at) {
  std::fprintf(stderr, "%s outside of DRAM, at %#llx\n", what, static_cast<unsigned long long>(at));
  std::exit(1);
}

void put(std::ofstream& file, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) file.put(static_cast<char>(value >> (8 * i)));
}

void run(uint64_t limit, const std::string& result) {
  auto context = std::make_unique<VerilatedContext>();
  auto machine = std::make_unique<Vsystolic>(context.get());
  std::ofstream file(result, std::ios::binary);
  std::string starts;
  // One edge resets: the sequencer finds the first instruction. From then on each turn of the loop is a cycle.
  machine->clk = 0;
  machine->running = 0;
  machine->eval();
  machine->clk = 1;
  machine->eval();
  machine->running = 1;
  machine->eval();
  bool ended = machine->done != 0;
  while (!ended && machine->now < limit) {
    for (int unit = 0; unit < 5; unit++) {
      if ((machine->started >> unit & 1) == 0) continue;
      starts.push_back(static_cast<char>(unit));
      for (int i = 0; i < 8; i++) starts.push_back(static_cast<char>(machine->now >> (8 * i)));
    }
    machine->clk = 0;
    machine->eval();
    machine->clk = 1;
    machine->eval();
    ended = machine->done != 0;
  }
  put(file, ended ? machine->now : UINT64_MAX, 8);
  file.write(starts.data(), static_cast<std::streamsize>(starts.size()));
  put(file, 255, 1);
  file.write(reinterpret_cast<const char*>(memory.data()), static_cast<std::streamsize>(memory.size()));
  for (uint8_t byte : machine->rootp->systolic__DOT__memory__DOT__scratchpad.m_storage) put(file, byte, 1);
  for (uint8_t byte : machine->rootp->systolic__DOT__memory__DOT__accumulators.m_storage) put(file, byte, 1);
  machine->final();
}

}  // namespace

extern "C" unsigned int program_word(unsigned int index) {
  uint32_t word = 0;
  for (size_t i = 0; i < 4; i++) {
    size_t at = 4 * static_cast<size_t>(index) + i;
    if (at < program.size()) word |= static_cast<uint32_t>(program[at]) << (8 * i);
  }
  return word;
}

extern "C" unsigned int dram_read(unsigned long long address) {
  if (address < weights.size()) return weights[address];
  if (address < base || address - base >= memory.size()) outside("read", address);
  return memory[address - base];
}

extern "C" void dram_write(unsigned long long address, unsigned int value) {
  if (address < base || address - base >= memory.size()) outside("write", address);
  memory[address - base] = static_cast<uint8_t>(value);
}

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: Vsystolic JOBS\n");
    return 2;
  }
  std::ifstream jobs(argv[1]);
  std::string line;
  while (std::getline(jobs, line)) {
    std::istringstream words(line);
    std::string program_path, weights_path, memory_path, result;
    uint64_t limit = 0;
    if (!(words >> program_path >> weights_path >> base >> memory_path >> limit >> result)) {
      std::fprintf(stderr, "not a job: %s\n", line.c_str());
      return 2;
    }
    program = read_file(program_path);
    weights = read_file(weights_path);
    memory = read_file(memory_path);
    run(limit, result);
  }
  return 0;
}
