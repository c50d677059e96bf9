// What kernels.cu needs of the device beyond CUDA C++: matrix units, copies to shared memory, and words that are read at once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace kernels {

// Shared memory that a kernel is given when it is launched.
__device__ inline unsigned char *shared_memory()
{
    extern __shared__ __align__(16) unsigned char memory[];
    return memory;
}

// An address in shared memory as instructions take it.
__device__ inline unsigned shared_address(const void *at)
{
    return static_cast<unsigned>(__cvta_generic_to_shared(at));
}

// Four matrices of eight rows of 16 bytes. Each lane says where a row begins, lanes 8 n and the next seven those of matrix n, and
// is given a word of each: word l % 4 of row l / 4.
__device__ inline void ldmatrix_x4(unsigned &a, unsigned &b, unsigned &c, unsigned &d, const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, but of elements of 16 bits each lane is given those of column l / 4 in rows 2 (l % 4) and the next.
__device__ inline void ldmatrix_x4_trans(unsigned &a, unsigned &b, unsigned &c, unsigned &d, const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
                 : "r"(shared_address(row))
                 : "memory");
}

// A word of elements that lie apart by a step.
template <typename Element> __device__ inline unsigned gathered(const Element *from, int step)
{
    if constexpr (sizeof(Element) == 4) {
        return *reinterpret_cast<const unsigned *>(from);
    } else if constexpr (sizeof(Element) == 2) {
        const unsigned short *const at = reinterpret_cast<const unsigned short *>(from);
        return at[0] | unsigned(at[step]) << 16;
    } else {
        const unsigned char *const at = reinterpret_cast<const unsigned char *>(from);
        return at[0] | unsigned(at[step]) << 8 | unsigned(at[2 * step]) << 16 | unsigned(at[3 * step]) << 24;
    }
}

// Numbers of binary32 as matrix units take them: with 10 bits of mantissa, ties away from zero.
template <int COUNT> __device__ inline void round_to_tf32(unsigned (&words)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; ++i) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(words[i]) : "f"(__uint_as_float(words[i])));
}

// The sums of a tile of 16 rows and 8 columns, to which the products of fragments are added.
#define DEFINE_MMA(NAME, SHAPE, TYPES, Sum, HELD)                                                                              \
    __device__ inline void NAME(Sum *sums, const unsigned (&a)[4], const unsigned (&b)[2])                                     \
    {                                                                                                                          \
        asm volatile("mma.sync.aligned." SHAPE ".row.col." TYPES " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "             \
                     "{%0, %1, %2, %3};"                                                                                       \
                     : HELD(sums[0]), HELD(sums[1]), HELD(sums[2]), HELD(sums[3])                                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                      \
    }
DEFINE_MMA(mma_m16n8k16_f16, "m16n8k16", "f32.f16.f16.f32", float, "+f")
DEFINE_MMA(mma_m16n8k16_bf16, "m16n8k16", "f32.bf16.bf16.f32", float, "+f")
DEFINE_MMA(mma_m16n8k8_tf32, "m16n8k8", "f32.tf32.tf32.f32", float, "+f")
DEFINE_MMA(mma_m16n8k32_s8_s8, "m16n8k32", "s32.s8.s8.s32", int, "+r")
DEFINE_MMA(mma_m16n8k32_s8_u8, "m16n8k32", "s32.s8.u8.s32", int, "+r")
DEFINE_MMA(mma_m16n8k32_u8_s8, "m16n8k32", "s32.u8.s8.s32", int, "+r")
DEFINE_MMA(mma_m16n8k32_u8_u8, "m16n8k32", "s32.u8.u8.s32", int, "+r")
#undef DEFINE_MMA

// Begins to copy 4, 8 or 16 bytes to shared memory, or zeros: then nothing is read.
template <int BYTES> __device__ inline void cp_async(void *shared, const void *from, bool when)
{
    const int read = when ? BYTES : 0;
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(from), "r"(read)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(shared_address(shared)), "l"(from), "r"(read),
                     "n"(BYTES)
                     : "memory");
}

template <int BYTES> __device__ inline void cp_async(void *shared, const void *from)
{
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(shared)), "l"(from), "n"(BYTES)
                     : "memory");
}

// Makes a group of the copies that the thread has begun since the last.
__device__ inline void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most so many groups of the thread's copies are on their way.
template <int GROUPS> __device__ inline void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

// Has the line of an address brought to the common cache.
__device__ inline void prefetch_line(const void *at)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(at)));
}

// Words that are read at once.
__device__ inline void load_words(unsigned (&words)[1], const void *from)
{
    words[0] = *static_cast<const unsigned *>(from);
}

__device__ inline void load_words(unsigned (&words)[2], const void *from)
{
    const uint2 all = *static_cast<const uint2 *>(from);
    words[0] = all.x, words[1] = all.y;
}

__device__ inline void load_words(unsigned (&words)[4], const void *from)
{
    const uint4 all = *static_cast<const uint4 *>(from);
    words[0] = all.x, words[1] = all.y, words[2] = all.z, words[3] = all.w;
}

// Words that are written at once.
__device__ inline void store_words(void *to, const unsigned (&words)[1])
{
    *static_cast<unsigned *>(to) = words[0];
}

__device__ inline void store_words(void *to, const unsigned (&words)[2])
{
    *static_cast<uint2 *>(to) = make_uint2(words[0], words[1]);
}

__device__ inline void store_words(void *to, const unsigned (&words)[4])
{
    *static_cast<uint4 *>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}

} // namespace kernels
