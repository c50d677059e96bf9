// The emitted device.h for tests: what its instructions do, by the PTX ISA's sections on ldmatrix, on the matrix fragments of
// mma.m16n8k8, .m16n8k16 and .m16n8k32, and on cp.async.
#pragma once

#include "cuda_runtime.h"

namespace kernels {

inline unsigned char *shared_memory() { return emulator::block.shared; }

inline void must_be_aligned(const void *at, size_t bytes)
{
    if (reinterpret_cast<uintptr_t>(at) % bytes != 0) emulator::fail("an address is not aligned");
}

// Matrices of 8 x 8 elements of 16 bits. Threads 0 to 7 give the rows of the first, 8 to 15 those of the second, and so on.
inline void ldmatrix(unsigned *const (&registers)[4], const void *row, bool is_transposed)
{
    must_be_aligned(row, 16);
    emulator::Warp &warp = emulator::warp();
    const unsigned lane = emulator::lane();
    warp.rows[lane] = row;
    emulator::meet_warp();
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
        unsigned short fragment[2];
        for (unsigned i = 0; i < 2; ++i) {
            unsigned down = lane / 4, right = lane % 4 * 2 + i;
            if (is_transposed) std::swap(down, right);
            fragment[i] = static_cast<const unsigned short *>(warp.rows[matrix * 8 + down])[right];
        }
        memcpy(registers[matrix], fragment, 4);
    }
    emulator::meet_warp();
}

inline void ldmatrix_x4(unsigned &a, unsigned &b, unsigned &c, unsigned &d, const void *row)
{
    ldmatrix({&a, &b, &c, &d}, row, false);
}

inline void ldmatrix_x4_trans(unsigned &a, unsigned &b, unsigned &c, unsigned &d, const void *row)
{
    ldmatrix({&a, &b, &c, &d}, row, true);
}

template <typename Element> unsigned gathered(const Element *from, int step)
{
    unsigned word = 0;
    for (size_t i = 0; i < 4 / sizeof(Element); ++i) {
        uint32_t element = 0;
        memcpy(&element, from + int(i) * step, sizeof(Element));
        word |= element << (i * 8 * sizeof(Element));
    }
    return word;
}

template <int COUNT> void round_to_tf32(unsigned (&words)[COUNT])
{
    for (unsigned &word : words) {
        const float x = __uint_as_float(word);
        if (isnan(x)) {
            word = 0x7fffffff;
        } else if (!isinf(x) && x != 0) {
            // Steps of 2^-10 of the leading bit; those of the smallest numbers are not finer.
            const int exponent = max(ilogb(x), -126);
            const float rounded = float(ldexp(round(ldexp(double(x), 10 - exponent)), exponent - 10));
            word = __float_as_uint(rounded);
        }
    }
}

// Elements of registers.
struct F16 {
    static constexpr int K = 16, PER = 2;
    static double at(unsigned word, int i) { return __half2float({(unsigned short)(word >> 16 * i)}); }
};
struct BF16 {
    static constexpr int K = 16, PER = 2;
    static double at(unsigned word, int i) { return __bfloat162float({(unsigned short)(word >> 16 * i)}); }
};
// The lower bits of a register are ignored.
struct TF32 {
    static constexpr int K = 8, PER = 1;
    static double at(unsigned word, int) { return __uint_as_float(word & 0xffffe000); }
};
struct S8 {
    static constexpr int K = 32, PER = 4;
    static double at(unsigned word, int i) { return (signed char)(word >> 8 * i); }
};
struct U8 {
    static constexpr int K = 32, PER = 4;
    static double at(unsigned word, int i) { return (unsigned char)(word >> 8 * i); }
};

// D = A B + C, where A has 16 rows, B 8 columns.
template <typename A, typename B, typename Sum> void mma(Sum *sums, const unsigned (&a)[4], const unsigned (&b)[2])
{
    emulator::Warp &warp = emulator::warp();
    const int group = int(emulator::lane() >> 2), thread = int(emulator::lane() % 4);
    if (A::K == 8) {
        // .tf32: row = groupID for a0 and a2, groupID + 8 for a1 and a3; col = threadID_in_group for a0 and a1, + 4 for a2 and a3.
        for (int i = 0; i < 4; ++i) warp.left[i == 0 || i == 2 ? group : group + 8][i < 2 ? thread : thread + 4] = A::at(a[i], 0);
        for (int i = 0; i < 2; ++i) warp.right[i == 0 ? thread : thread + 4][group] = B::at(b[i], 0);
    } else if (A::K == 16) {
        // .f16, .bf16: row = groupID for 0 <= i < 2 and 4 <= i < 6; col = threadID_in_group * 2 + (i & 1), + 8 for i >= 4.
        for (int i = 0; i < 8; ++i) {
            const int row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
            const int column = thread * 2 + (i & 1) + (i < 4 ? 0 : 8);
            warp.left[row][column] = A::at(a[i / 2], i % 2);
        }
        for (int i = 0; i < 4; ++i) warp.right[thread * 2 + (i & 1) + (i < 2 ? 0 : 8)][group] = B::at(b[i / 2], i % 2);
    } else {
        // .s8, .u8: row = groupID for 0 <= i < 4 and 8 <= i < 12; col = threadID_in_group * 4 + (i & 3), + 16 for i >= 8.
        for (int i = 0; i < 16; ++i) {
            const int row = (i >= 0 && i < 4) || (i >= 8 && i < 12) ? group : group + 8;
            const int column = thread * 4 + (i & 3) + (i < 8 ? 0 : 16);
            warp.left[row][column] = A::at(a[i / 4], i % 4);
        }
        for (int i = 0; i < 8; ++i) warp.right[thread * 4 + (i & 3) + (i < 4 ? 0 : 16)][group] = B::at(b[i / 4], i % 4);
    }
    emulator::meet_warp();
    for (int i = 0; i < 4; ++i) {
        const int row = i < 2 ? group : group + 8, column = thread * 2 + (i & 1);
        for (int k = 0; k < A::K; ++k) {
            const double product = warp.left[row][k] * warp.right[k][column];
            // Sums of integers wrap.
            if (std::is_same<Sum, int>::value) sums[i] = Sum(unsigned(sums[i]) + unsigned(int(product)));
            else sums[i] = Sum(double(sums[i]) + product);
        }
    }
    emulator::meet_warp();
}

inline void mma_m16n8k16_f16(float *sums, const unsigned (&a)[4], const unsigned (&b)[2]) { mma<F16, F16>(sums, a, b); }
inline void mma_m16n8k16_bf16(float *sums, const unsigned (&a)[4], const unsigned (&b)[2]) { mma<BF16, BF16>(sums, a, b); }
inline void mma_m16n8k8_tf32(float *sums, const unsigned (&a)[4], const unsigned (&b)[2]) { mma<TF32, TF32>(sums, a, b); }
inline void mma_m16n8k32_s8_s8(int *sums, const unsigned (&a)[4], const unsigned (&b)[2]) { mma<S8, S8>(sums, a, b); }
inline void mma_m16n8k32_s8_u8(int *sums, const unsigned (&a)[4], const unsigned (&b)[2]) { mma<S8, U8>(sums, a, b); }
inline void mma_m16n8k32_u8_s8(int *sums, const unsigned (&a)[4], const unsigned (&b)[2]) { mma<U8, S8>(sums, a, b); }
inline void mma_m16n8k32_u8_u8(int *sums, const unsigned (&a)[4], const unsigned (&b)[2]) { mma<U8, U8>(sums, a, b); }

template <int BYTES> void cp_async(void *shared, const void *from, bool when)
{
    must_be_aligned(shared, BYTES);
    if (when) must_be_aligned(from, BYTES);
    // Until it is there nothing that can be used is.
    memset(shared, 0xff, BYTES);
    emulator::fiber().groups.back().push_back({shared, from, BYTES, when});
}

template <int BYTES> void cp_async(void *shared, const void *from) { cp_async<BYTES>(shared, from, true); }

inline void cp_async_commit() { emulator::fiber().groups.emplace_back(); }

template <int GROUPS> void cp_async_wait()
{
    auto &groups = emulator::fiber().groups;
    while (groups.size() > GROUPS + 1) {
        for (const emulator::Copy &copy : groups.front()) {
            if (copy.reads) memcpy(copy.to, copy.from, copy.bytes);
            else memset(copy.to, 0, copy.bytes);
        }
        groups.erase(groups.begin());
    }
}

inline void prefetch_line(const void *) {}

template <int COUNT> void load_words(unsigned (&words)[COUNT], const void *from)
{
    must_be_aligned(from, COUNT * 4);
    memcpy(words, from, COUNT * 4);
}

template <int COUNT> void store_words(void *to, const unsigned (&words)[COUNT])
{
    must_be_aligned(to, COUNT * 4);
    memcpy(to, words, COUNT * 4);
}

} // namespace kernels
