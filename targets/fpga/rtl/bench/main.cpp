// Runs jobs on a design: each is a line with a file of what its memories hold before, the most cycles, and a file for the results.
//
// Files hold numbers of 64 bits: how many banks there are, how many words each has, and then all words, bank by bank. Results are
// the cycles of the run, all ones if they are more than the limit, and all words.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "Vfunctions.h"
#include "verilated.h"

namespace {

std::vector<uint64_t> numbers_of(const std::string &path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) {
        std::cerr << path << " cannot be read\n";
        std::exit(1);
    }
    std::vector<uint64_t> numbers(static_cast<size_t>(file.tellg()) / 8);
    file.seekg(0);
    file.read(reinterpret_cast<char *>(numbers.data()), static_cast<std::streamsize>(numbers.size() * 8));
    return numbers;
}

void clock(Vfunctions &design) {
    design.clk = 0;
    design.eval();
    design.clk = 1;
    design.eval();
}

uint64_t run(Vfunctions &design, uint64_t limit) {
    design.start = 1;
    clock(design);
    design.start = 0;
    for (uint64_t cycles = 1; cycles <= limit; ++cycles) {
        design.clk = 0;
        design.eval();
        const bool is_done = design.done;
        design.clk = 1;
        design.eval();
        if (is_done) return cycles;
    }
    return ~uint64_t{0};
}

void job(const std::string &memories, uint64_t limit, const std::string &results) {
    std::vector<uint64_t> numbers = numbers_of(memories);
    const uint64_t banks = numbers.at(0);
    VerilatedContext context;
    auto design = std::make_unique<Vfunctions>(&context);
    design->reset = 1;
    design->start = 0;
    design->host_write = 0;
    design->host_bank = ~0u;
    for (int cycle = 0; cycle < 2; ++cycle) clock(*design);
    size_t place = 1 + banks;
    for (uint64_t bank = 0; bank < banks; ++bank) {
        for (uint64_t word = 0; word < numbers.at(1 + bank); ++word) {
            design->host_bank = static_cast<uint32_t>(bank);
            design->host_word = static_cast<uint32_t>(word);
            design->host_in = numbers.at(place++);
            design->host_write = 1;
            clock(*design);
        }
    }
    design->host_write = 0;
    design->host_bank = ~0u;
    design->reset = 0;
    clock(*design);
    std::vector<uint64_t> left = {run(*design, limit)};
    // Writes that were made in the last cycle are there now.
    for (uint64_t bank = 0; bank < banks; ++bank) {
        for (uint64_t word = 0; word < numbers.at(1 + bank); ++word) {
            design->host_bank = static_cast<uint32_t>(bank);
            design->host_word = static_cast<uint32_t>(word);
            clock(*design);
            design->eval();
            left.push_back(design->host_out);
        }
    }
    design->final();
    std::ofstream file(results, std::ios::binary);
    file.write(reinterpret_cast<const char *>(left.data()), static_cast<std::streamsize>(left.size() * 8));
}

} // namespace

int main(int count, char **arguments) {
    if (count != 2) {
        std::cerr << "expected a file of jobs\n";
        return 1;
    }
    std::ifstream jobs(arguments[1]);
    std::string memories, results;
    uint64_t limit;
    while (jobs >> memories >> limit >> results) job(memories, limit, results);
    return 0;
}
