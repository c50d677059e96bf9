// Floats of integers of few bits, as kernels.cu makes them of words that it has read.
#pragma once

#include "device.h"

namespace kernels {

// Integers of some bits in a word, with or without signs, as pairs of halves: each less the zero point.
//
// Bits of an integer that are joined with those of 1024 are a half of 1024 more, with no conversion; with its sign bit turned over
// an integer that has signs is that of one that has none, 8 or 128 more. All differences are exact.
template <int BITS, bool SIGNED> struct Integers;

// A word as a pair of numbers.
template <typename Pair> __device__ inline Pair pair_of(unsigned bits)
{
    static_assert(sizeof(Pair) == sizeof bits, "pairs are words");
    Pair pair;
    memcpy(&pair, &bits, sizeof bits);
    return pair;
}

__device__ inline __half2 halves(unsigned bits)
{
    return pair_of<__half2>(bits);
}

// A half of two bytes twice.
__device__ inline __half2 both(unsigned half)
{
    return halves(half * 0x10001);
}

template <bool SIGNED> struct Integers<4, SIGNED> {
    static constexpr int COUNT = 8;
    static constexpr unsigned SIGN = SIGNED ? 8 : 0;

    // Those i and i + 4 for i = 0, 1, 2, 3. The second and last pair have their bits four places further up, where they are worth
    // sixteen times as much.
    __device__ static void differences(__half2 (&pairs)[4], unsigned word, int zero)
    {
        const unsigned more = unsigned(zero) + SIGN, next = word >> 8;
        const __half2 low = both(0x6400 + more), high = __hsub2(both(0x6380), low), part = both(0x2c00);
        pairs[0] = __hsub2(halves((word & 0x000f000f) ^ (0x64006400 | SIGN * 0x10001)), low);
        pairs[1] = __hfma2(halves((word & 0x00f000f0) ^ (0x64006400 | SIGN * 0x100010)), part, high);
        pairs[2] = __hsub2(halves((next & 0x000f000f) ^ (0x64006400 | SIGN * 0x10001)), low);
        pairs[3] = __hfma2(halves((next & 0x00f000f0) ^ (0x64006400 | SIGN * 0x100010)), part, high);
    }

    // The same of bfloat16, whose mantissa has room for 128 more.
    __device__ static void differences(__nv_bfloat162 (&pairs)[4], unsigned word, int zero)
    {
        const __nv_bfloat162 more = pair_of<__nv_bfloat162>((0x4300 + unsigned(zero) + SIGN) * 0x10001);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const unsigned bits = (word >> 4 * i & 0x000f000f) ^ (0x43004300 | SIGN * 0x10001);
            pairs[i] = __hsub2(pair_of<__nv_bfloat162>(bits), more);
        }
    }

    __device__ static constexpr int place(int pair, int half)
    {
        return pair + 4 * half;
    }
};

template <bool SIGNED> struct Integers<8, SIGNED> {
    static constexpr int COUNT = 4;
    static constexpr unsigned SIGN = SIGNED ? 128 : 0;

    __device__ static void differences(__half2 (&pairs)[2], unsigned word, int zero)
    {
        const unsigned bits = word ^ SIGN * 0x1010101;
        const __half2 more = both(0x6400 + unsigned(zero) + SIGN);
        pairs[0] = __hsub2(halves(__byte_perm(bits, 0x64646464, 0x5140)), more);
        pairs[1] = __hsub2(halves(__byte_perm(bits, 0x64646464, 0x5342)), more);
    }

    __device__ static constexpr int place(int pair, int half)
    {
        return 2 * pair + half;
    }
};

// What differences are multiplied by their scale as, and rounded to.
struct Singles {};
struct Halves {};
struct Bfloats {};

// The integers of a word, each less the zero point and times the scale.
template <typename Word, typename Numbers>
__device__ inline void dequantize(float *to, unsigned word, int zero, float scale)
{
    constexpr int PAIRS = Word::COUNT / 2;
    if constexpr (__is_same(Numbers, Bfloats) && Word::COUNT == 8) {
        __nv_bfloat162 pairs[PAIRS];
        Word::differences(pairs, word, zero);
        const __nv_bfloat162 by = __float2bfloat162_rn(scale);
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            const float2 both = __bfloat1622float2(__hmul2(pairs[i], by));
            to[Word::place(i, 0)] = both.x, to[Word::place(i, 1)] = both.y;
        }
    } else {
        __half2 pairs[PAIRS];
        Word::differences(pairs, word, zero);
        const __half2 by = __float2half2_rn(scale);
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            float2 both = __half22float2(__is_same(Numbers, Halves) ? __hmul2(pairs[i], by) : pairs[i]);
            if constexpr (!__is_same(Numbers, Halves)) both.x *= scale, both.y *= scale;
            if constexpr (__is_same(Numbers, Bfloats)) both = __bfloat1622float2(__float22bfloat162_rn(both));
            to[Word::place(i, 0)] = both.x, to[Word::place(i, 1)] = both.y;
        }
    }
}

} // namespace kernels
