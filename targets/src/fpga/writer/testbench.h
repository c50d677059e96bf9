// What a testbench needs: memory beside the part, and how near outputs must come.
#pragma once

#include <cmath>
#include <initializer_list>

#include "arrays.h"
#include "beats.h"

// Channels of memory.
class Memory {
public:
    explicit Memory(std::initializer_list<size_t> rows)
    {
        for (const size_t count : rows) channels.emplace_back(count + 1, Beat(0));
    }

    Beat *channel(size_t number) { return channels.at(number).data(); }
    Beat &row(size_t number, size_t at) { return channels.at(number).at(at); }

private:
    std::vector<std::vector<Beat>> channels;
};

inline Bytes part(const Bytes &bytes, size_t at, size_t count)
{
    if (at + count > bytes.size()) fail("the weights end too early");
    return Bytes(bytes.begin() + at, bytes.begin() + at + count);
}

// Bytes of a beat from one on that are there.
inline size_t bytes_of(size_t beat, size_t count)
{
    return count - 64 * beat < 64 ? count - 64 * beat : 64;
}

// Writes bytes to channels whose beats take turns.
inline void write(Memory &memory, size_t first, size_t ways, size_t at, const Bytes &bytes)
{
    for (size_t beat = 0; 64 * beat < bytes.size(); ++beat) {
        uint64_t words[8] = {};
        std::memcpy(words, &bytes[64 * beat], bytes_of(beat, bytes.size()));
        Beat &row = memory.row(first + beat % ways, at + beat / ways);
        for (int word = 0; word < 8; ++word) row.range(64 * word + 63, 64 * word) = words[word];
    }
}

inline Bytes read(Memory &memory, size_t first, size_t ways, size_t at, size_t count)
{
    Bytes bytes(count);
    for (size_t beat = 0; 64 * beat < count; ++beat) {
        uint64_t words[8];
        const Beat &row = memory.row(first + beat % ways, at + beat / ways);
        for (int word = 0; word < 8; ++word) words[word] = row.range(64 * word + 63, 64 * word).to_uint64();
        std::memcpy(&bytes[64 * beat], words, bytes_of(beat, count));
    }
    return bytes;
}

// A float of so many bits of exponent and mantissa, of which the first has a bias.
inline double number_of(const char *bytes, int exponent_bits, int mantissa_bits, bool has_infinities)
{
    const int size = 1 + exponent_bits + mantissa_bits;
    uint64_t bits = 0;
    std::memcpy(&bits, bytes, size / 8);
    const int all = (1 << exponent_bits) - 1, bias = all >> 1;
    const int exponent = int(bits >> mantissa_bits) & all;
    const uint64_t mantissa = bits & ((uint64_t(1) << mantissa_bits) - 1);
    const double sign = bits >> (size - 1) & 1 ? -1 : 1;
    if (exponent == all && has_infinities) return mantissa ? NAN : sign * INFINITY;
    if (exponent == all && mantissa == (uint64_t(1) << mantissa_bits) - 1) return NAN;
    const double whole = exponent ? double(mantissa + (uint64_t(1) << mantissa_bits)) : double(mantissa);
    return sign * std::ldexp(whole, (exponent ? exponent : 1) - bias - mantissa_bits);
}

// Whether elements are those that were expected: integers all bits, floats within eight steps of a number as great as the
// greatest, those of 32 and 64 bits within 2^-13 and 2^-30 of it, since other libraries have other exponentials.
inline bool is_near(const std::string &type, const Bytes &own, const Bytes &expected)
{
    if (own.size() != expected.size()) return false;
    if (own == expected) return true;
    int exponent = 0, mantissa = 0;
    double tolerance = 0;
    bool has_infinities = true;
    if (type == "f64") exponent = 11, mantissa = 52, tolerance = 0x1p-30;
    if (type == "f32") exponent = 8, mantissa = 23, tolerance = 0x1p-13;
    if (type == "f16") exponent = 5, mantissa = 10, tolerance = 0x1p-8;
    if (type == "bf16") exponent = 8, mantissa = 7, tolerance = 0x1p-5;
    if (type == "f8e4m3") exponent = 4, mantissa = 3, tolerance = 0.5, has_infinities = false;
    if (type == "f8e5m2") exponent = 5, mantissa = 2, tolerance = 1;
    if (exponent == 0) return false;
    const size_t size = (1 + exponent + mantissa) / 8;
    double greatest = 0;
    for (size_t at = 0; at < own.size(); at += size) {
        const double value = number_of(&expected[at], exponent, mantissa, has_infinities);
        if (std::isfinite(value)) greatest = std::fmax(greatest, std::fabs(value));
    }
    for (size_t at = 0; at < own.size(); at += size) {
        const double a = number_of(&own[at], exponent, mantissa, has_infinities);
        const double b = number_of(&expected[at], exponent, mantissa, has_infinities);
        if (std::isnan(a) && std::isnan(b)) continue;
        if (a != b && !(std::fabs(a - b) <= tolerance * greatest)) return false;
    }
    return true;
}

// Writes an output, and compares it where one was expected.
inline bool finish(const std::string &name, const std::string &type, const char *descr, const std::string &shape,
                   const Bytes &elements, const std::string &outputs, const std::string &expected)
{
    write_npy(outputs + "/" + name + ".npy", descr, shape, elements);
    if (expected.empty() || is_near(type, elements, read_npy(expected + "/" + name + ".npy", descr, elements.size())))
        return true;
    std::fprintf(stderr, "%s is not what was expected\n", name.c_str());
    return false;
}
