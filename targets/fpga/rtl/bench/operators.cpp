// Runs all operators on numbers that are random, or special, or near each other, and compares with what the machine that this runs on
// says: the same bits, and of what follows from e^x 1 unit in the last place or little more. Writes a line for each difference.
//
// A job is a line with the number of cases, a seed, and the file for the lines. The last line says how far e^x is off at most, in
// units in the last place.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <random>
#include <string>

#include "Voperators.h"
#include "verilated.h"

namespace {

constexpr int LATENCY = 40;
constexpr uint32_t NOT_A_NUMBER = 0x7fc00000;

float number_of(uint32_t bits) {
    float number;
    std::memcpy(&number, &bits, 4);
    return number;
}

// Sign and payload of what is no number are the compiler's choice.
uint32_t bits_of(float number) {
    uint32_t bits;
    std::memcpy(&bits, &number, 4);
    return std::isnan(number) ? NOT_A_NUMBER : bits;
}

struct Case {
    uint32_t a, b, c;
};

class Cases {
public:
    explicit Cases(uint64_t seed) : random_(seed) {}

    Case next() {
        const uint32_t a = pick(0x3f800000), b = pick(a);
        const float product = number_of(a) * number_of(b);
        uint32_t c = pick(random_() % 3 != 0 ? bits_of(product) : a);
        if (random_() % 64 == 0) c = bits_of(-product);
        return {a, b, c};
    }

private:
    uint32_t pick(uint32_t near) {
        static constexpr uint32_t special[] = {
            0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x3f800000, 0xbf800000,
            0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345, 0x3f000000, 0x3effffff, 0x4b000000,
            0x4b800001, 0x4f000000, 0xcf000000, 0x42b17218, 0xc2cff1b5, 0x40200000, 0x3fc00000, 0x477fefff,
            0x477ff000, 0x33000000, 0x33000001, 0x38800000, 0x387fe000};
        const uint64_t choice = random_();
        const uint32_t x = static_cast<uint32_t>(random_());
        const int near_exponent = static_cast<int>(random_() % 5) - 2;
        switch (choice % 8) {
        case 0: return special[(choice >> 8) % std::size(special)];
        case 1: return (x & 0x807fffff) | (((near & 0x7f800000) + (static_cast<uint32_t>(near_exponent) << 23)) & 0x7f800000);
        case 2: return near ^ (1u << ((choice >> 8) % 32));
        case 3: return x & 0x80ffffff;
        case 4: return (x & 0x807fffff) | (static_cast<uint32_t>(100 + (choice >> 8) % 60) << 23);
        case 5: return (x & 0x807f0000) | (static_cast<uint32_t>(110 + (choice >> 8) % 30) << 23);
        case 6: return static_cast<uint32_t>(static_cast<int32_t>((choice >> 8) % 2000) - 1000);
        default: return x;
        }
    }

    std::mt19937_64 random_;
};

class Comparison {
public:
    explicit Comparison(std::ofstream &out) : out_(out) {}

    void same(const char *name, const Case &operands, uint32_t own, uint32_t expected) {
        if (own == expected || ++count_ > 40) return;
        char line[160];
        std::snprintf(line, sizeof line, "%s of %08x %08x %08x is %08x, not %08x\n", name, operands.a, operands.b,
                      operands.c, own, expected);
        out_ << line;
    }

    // What is no number may keep its payload.
    void alike(const char *name, const Case &operands, uint32_t own, float expected) {
        uint32_t bits;
        std::memcpy(&bits, &expected, 4);
        if (std::isnan(expected) && std::isnan(number_of(own))) return;
        same(name, operands, own, bits);
    }

    // Results that are so many units in the last place off at most.
    void near(const char *name, const Case &operands, uint32_t own, double exact, double units, double *worst) {
        if (std::isnan(exact)) return same(name, operands, own, NOT_A_NUMBER);
        if (static_cast<float>(exact) == number_of(own)) return;
        int exponent;
        std::frexp(exact, &exponent);
        const double unit = std::ldexp(1.0, std::max(exponent - 24, -149));
        const double off = std::fabs(static_cast<double>(number_of(own)) - exact) / unit;
        if (std::isfinite(off)) *worst = std::max(*worst, off);
        if (!(off <= units)) same(name, operands, own, bits_of(static_cast<float>(exact)));
    }

private:
    std::ofstream &out_;
    int count_ = 0;
};

// Towards zero, to the ends of a range where it is outside.
double truncated(double x, double low, double high) {
    return std::isnan(x) ? 0.0 : std::min(std::max(std::trunc(x), low), high);
}

void compare(Comparison &comparison, const Voperators &unit, const Case &own, double *worst) {
    const float x = number_of(own.a), y = number_of(own.b);
    const auto same = [&](const char *name, uint32_t result, uint32_t expected) {
        comparison.same(name, own, result, expected);
    };
    same("sum", unit.sum, bits_of(x + y));
    same("difference", unit.difference, bits_of(x - y));
    same("product", unit.product, bits_of(x * y));
    same("fused", unit.fused, bits_of(std::fmaf(x, y, number_of(own.c))));
    same("ratio", unit.ratio, bits_of(x / y));
    same("root", unit.root, bits_of(std::sqrt(x)));
    same("reciprocal_root", unit.reciprocal_root, bits_of(1.0f / std::sqrt(x)));
    comparison.near("power", own, unit.power, std::exp(static_cast<double>(x)), 0.51, worst);
    const uint32_t exponent = own.b >> 23 & 255;
    const uint32_t normal = exponent == 0 ? 1 : exponent == 255 ? 254 : exponent;
    same("scaled", unit.scaled, bits_of(x * number_of((own.b & 0x80000000) | normal << 23)));
    same("scaled_down", unit.scaled_down, bits_of(x * 0.25f));
    same("compared", unit.compared, (x == y) | (x >= y) << 1 | (x > y) << 2 | (x <= y) << 3 | (x < y) << 4);
    comparison.alike("greater", own, unit.greater, std::isnan(x) || x >= y ? x : y);
    comparison.alike("lesser", own, unit.lesser, std::isnan(x) || x <= y ? x : y);
    comparison.alike("greater_folded", own, unit.greater_folded, std::isnan(x) || x > y ? x : y);
    comparison.alike("lesser_folded", own, unit.lesser_folded, std::isnan(x) || x < y ? x : y);
    same("of_signed", unit.of_signed, bits_of(static_cast<float>(static_cast<int32_t>(own.a))));
    same("of_unsigned", unit.of_unsigned, bits_of(static_cast<float>(own.a)));
    same("to_signed", unit.to_signed, static_cast<uint32_t>(static_cast<int64_t>(truncated(x, -0x1p31, 0x1p31 - 1))));
    same("to_unsigned", unit.to_unsigned, static_cast<uint32_t>(truncated(x, 0, 0x1p32 - 1)));
    same("to_i8", unit.to_i8, static_cast<uint32_t>(static_cast<int>(truncated(x, -128, 127))) & 255);
    same("to_u8", unit.to_u8, static_cast<uint32_t>(truncated(x, 0, 255)));
    same("nearest", unit.nearest, bits_of(std::nearbyint(x)));
    same("below", unit.below, bits_of(std::floor(x)));
    same("above", unit.above, bits_of(std::ceil(x)));
    same("whole_product", unit.whole_product, own.a * own.b);
    const int64_t mixed = int64_t{own.a & 255} * static_cast<int16_t>(own.b);
    same("mixed_product", unit.mixed_product, static_cast<uint32_t>(mixed));
    if (own.b != 0) {
        const int64_t a = static_cast<int32_t>(own.a), b = static_cast<int32_t>(own.b), rest = a % b;
        same("quotient", unit.quotient, static_cast<uint32_t>(a / b));
        same("rest", unit.rest, static_cast<uint32_t>(rest));
        same("modulo", unit.modulo, static_cast<uint32_t>(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest));
    }
    // bfloat16 by the definition of rounding to nearest even.
    const uint32_t lower = own.a & 0xffff, odd = own.a >> 16 & 1;
    const uint32_t brain = std::isnan(x) ? 0x7fc0 : (own.a >> 16) + (lower > 0x8000 || (lower == 0x8000 && odd) ? 1 : 0);
    same("brain", unit.brain, brain);
    if (std::isnan(x)) {
        same("half", unit.half, 0x7e00);
    } else {
        const _Float16 half = static_cast<_Float16>(x);
        uint16_t bits;
        std::memcpy(&bits, &half, 2);
        same("half", unit.half, bits);
    }
    const uint16_t narrow = static_cast<uint16_t>(own.a);
    _Float16 half;
    std::memcpy(&half, &narrow, 2);
    same("widened", unit.widened, bits_of(static_cast<float>(half)));
}

void job(uint64_t count, uint64_t seed, const std::string &results) {
    std::ofstream out(results);
    Comparison comparison(out);
    Cases cases(seed);
    VerilatedContext context;
    const auto unit = std::make_unique<Voperators>(&context);
    Case held[LATENCY] = {};
    double worst = 0;
    for (uint64_t number = 0; number < count + LATENCY; ++number) {
        Case &own = held[number % LATENCY];
        // Before the edge that takes the next in, what came 40 edges ago is there.
        if (number >= LATENCY) {
            compare(comparison, *unit, own, &worst);
        }
        own = cases.next();
        unit->a = own.a;
        unit->b = own.b;
        unit->c = own.c;
        unit->clk = 0;
        unit->eval();
        unit->clk = 1;
        unit->eval();
    }
    out << worst << "\n";
    unit->final();
}

} // namespace

int main(int count, char **arguments) {
    if (count != 2) {
        std::cerr << "expected a file of jobs\n";
        return 1;
    }
    std::ifstream jobs(arguments[1]);
    uint64_t cases, seed;
    std::string results;
    while (jobs >> cases >> seed >> results) job(cases, seed, results);
    return 0;
}
