// CUDA on a processor, for tests: what emitted programs use of it, so that they run where there is no GPU.
//
// Threads of a block are coroutines on one thread of the processor, which run one after another up to where they wait for each
// other. Each second block begins with its last thread: what is right in one order only, for want of a barrier, goes wrong in
// the other. Copies to shared memory are made as late as they may be, when the thread waits for them.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(threads, blocks)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulator {

[[noreturn]] inline void fail(const char *what)
{
    fprintf(stderr, "error: %s\n", what);
    exit(1);
}

// Threads that wait until so many are there.
struct Meeting {
    unsigned arrived = 0, generation = 0;
};

// A copy to shared memory that is on its way.
struct Copy {
    void *to;
    const void *from;
    size_t bytes;
    bool reads;
};

// Bytes that a thread has for its variables.
constexpr size_t STACK = 128 << 10;

struct Fiber {
    ucontext_t context;
    char *stack = static_cast<char *>(malloc(STACK));
    bool is_done;
    const Meeting *waits;
    unsigned generation;
    // Groups of copies, the last of which is not closed.
    std::vector<std::vector<Copy>> groups;
};

// What lanes of a warp hand each other.
struct Warp {
    Meeting meeting;
    uint64_t values[32];
    const void *rows[32];
    double left[16][32], right[32][8];
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    Meeting barrier;
    unsigned threads = 0, current = 0;
    ucontext_t scheduler;
    void (*body)(void *) = nullptr;
    void *argument = nullptr;
    alignas(128) unsigned char shared[256 << 10];
};

inline Block block;

inline Fiber &fiber() { return block.fibers[block.current]; }
inline Warp &warp() { return block.warps[block.current / 32]; }
inline unsigned lane() { return block.current % 32; }

inline void meet(Meeting &meeting, unsigned size)
{
    if (++meeting.arrived == size) {
        meeting.arrived = 0;
        ++meeting.generation;
        return;
    }
    Fiber &own = fiber();
    own.waits = &meeting;
    own.generation = meeting.generation;
    swapcontext(&own.context, &block.scheduler);
}

inline void meet_warp()
{
    if (block.threads % 32 != 0) fail("lanes are missing");
    meet(warp().meeting, 32);
}

inline void start()
{
    block.body(block.argument);
    fiber().is_done = true;
}

} // namespace emulator

inline dim3 blockIdx, threadIdx;

namespace emulator {

inline void run(unsigned threads, bool forwards, void (*body)(void *), void *argument)
{
    block.threads = threads;
    block.body = body;
    block.argument = argument;
    if (block.fibers.size() < threads) block.fibers.resize(threads);
    block.warps.assign((threads + 31) / 32, Warp());
    block.barrier = Meeting();
    memset(block.shared, 0xff, sizeof block.shared);
    for (unsigned i = 0; i < threads; ++i) {
        Fiber &own = block.fibers[i];
        own.is_done = false;
        own.waits = nullptr;
        own.groups.assign(1, {});
        getcontext(&own.context);
        own.context.uc_stack.ss_sp = own.stack;
        own.context.uc_stack.ss_size = STACK;
        own.context.uc_link = &block.scheduler;
        makecontext(&own.context, start, 0);
    }
    for (unsigned left = threads; left > 0;) {
        bool moved = false;
        for (unsigned i = 0; i < threads; ++i) {
            const unsigned next = forwards ? i : threads - 1 - i;
            Fiber &own = block.fibers[next];
            if (own.is_done || (own.waits && own.waits->generation == own.generation)) continue;
            own.waits = nullptr;
            block.current = next;
            threadIdx.x = next;
            swapcontext(&block.scheduler, &own.context);
            left -= own.is_done;
            moved = true;
        }
        if (!moved) fail("threads wait for each other");
    }
}

template <typename Kernel, typename... Parameters, size_t... Place>
void call(Kernel *kernel, void **arguments, std::tuple<Parameters...> *, std::index_sequence<Place...>)
{
    kernel(*static_cast<Parameters *>(arguments[Place])...);
}

template <typename... Parameters> struct Launch {
    void (*kernel)(Parameters...);
    void **arguments;

    static void body(void *self)
    {
        const Launch &launch = *static_cast<Launch *>(self);
        call(launch.kernel, launch.arguments, static_cast<std::tuple<Parameters...> *>(nullptr),
             std::index_sequence_for<Parameters...>());
    }
};

} // namespace emulator

// The host's side.

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
typedef void *cudaStream_t;

inline const char *cudaGetErrorString(cudaError_t) { return "invalid value"; }
inline cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    *memory = aligned_alloc(512, (bytes + 511) / 512 * 512);
    // What is read before it is written is no number.
    memset(*memory, 0xff, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaFree(void *memory) { return free(memory), cudaSuccess; }
inline cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind)
{
    return memcpy(to, from, bytes), cudaSuccess;
}
template <typename Kernel> cudaError_t cudaFuncSetAttribute(Kernel *, cudaFuncAttribute, int bytes)
{
    return size_t(bytes) <= sizeof emulator::block.shared ? cudaSuccess : cudaErrorInvalidValue;
}
template <typename... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, void **arguments, size_t shared, cudaStream_t)
{
    if (threads.x == 0 || threads.x > 1024 || shared > sizeof emulator::block.shared || blocks.y > 65535 || blocks.z > 65535)
        return cudaErrorInvalidValue;
    emulator::Launch<Parameters...> launch = {kernel, arguments};
    unsigned number = 0;
    for (blockIdx.z = 0; blockIdx.z < blocks.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < blocks.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < blocks.x; ++blockIdx.x)
                emulator::run(threads.x, number++ % 2 == 0, emulator::Launch<Parameters...>::body, &launch);
    return cudaSuccess;
}

// The device's side.

inline void __syncthreads() { emulator::meet(emulator::block.barrier, emulator::block.threads); }

// Blocks run one after the other, so that all is seen.
inline void __threadfence() {}

inline unsigned atomicInc(unsigned *counter, unsigned most)
{
    const unsigned before = *counter;
    *counter = before >= most ? 0 : before + 1;
    return before;
}

template <typename T> T __shfl_xor_sync(unsigned lanes, T value, int mask)
{
    if (lanes != 0xffffffff) emulator::fail("a shuffle is for all lanes");
    emulator::Warp &warp = emulator::warp();
    memcpy(&warp.values[emulator::lane()], &value, sizeof value);
    emulator::meet_warp();
    T other;
    memcpy(&other, &warp.values[emulator::lane() ^ unsigned(mask)], sizeof other);
    emulator::meet_warp();
    return other;
}

template <typename To, typename From> To same_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline float __uint_as_float(unsigned bits) { return same_bits<float>(bits); }
inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }
inline double __hiloint2double(int high, int low)
{
    return same_bits<double>(uint64_t(unsigned(high)) << 32 | unsigned(low));
}

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline unsigned long long min(unsigned long long a, unsigned long long b) { return a < b ? a : b; }
inline unsigned long long max(unsigned long long a, unsigned long long b) { return a > b ? a : b; }

// Conversions saturate; that of NaN is the least number, which is one of those that devices give (PTX ISA, cvt).
template <typename Integer, typename Float> Integer towards_zero(Float x)
{
    const Float above = ldexp(Float(1), std::numeric_limits<Integer>::digits);
    const Float least = std::is_signed<Integer>::value ? -above : Float(0);
    if (isnan(x)) return std::numeric_limits<Integer>::min() + (std::is_signed<Integer>::value ? 0 : 1);
    if (x >= above) return std::numeric_limits<Integer>::max();
    return x <= least ? std::numeric_limits<Integer>::min() : Integer(x);
}
inline int __float2int_rz(float x) { return towards_zero<int>(x); }
inline int __double2int_rz(double x) { return towards_zero<int>(x); }
inline unsigned __float2uint_rz(float x) { return towards_zero<unsigned>(x); }
inline unsigned __double2uint_rz(double x) { return towards_zero<unsigned>(x); }
inline long long __float2ll_rz(float x) { return towards_zero<long long>(x); }
inline long long __double2ll_rz(double x) { return towards_zero<long long>(x); }
inline unsigned long long __float2ull_rz(float x) { return towards_zero<unsigned long long>(x); }
inline unsigned long long __double2ull_rz(double x) { return towards_zero<unsigned long long>(x); }

struct __half { unsigned short bits; };
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline float __half2float(__half x)
{
    const int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
    const float size = exponent == 31  ? (mantissa ? NAN : INFINITY)
                       : exponent == 0 ? ldexp(float(mantissa), -24)
                                       : ldexp(float(1024 + mantissa), exponent - 25);
    return x.bits & 0x8000 ? -size : size;
}
inline __half __float2half_rn(float x)
{
    if (isnan(x)) return {0x7fff};
    const unsigned short sign = signbit(x) ? 0x8000 : 0;
    const double size = fabs(double(x));
    if (size >= 65520) return {(unsigned short)(sign | 0x7c00)};
    const int exponent = max(size > 0 ? ilogb(size) : -14, -14);
    return {(unsigned short)(sign | ((exponent + 14) * 1024 + int(rint(ldexp(size, 10 - exponent)))))};
}

struct __nv_bfloat16 { unsigned short bits; };
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x)
{
    if (isnan(x)) return {0x7fff};
    // Of the two neighbours the nearer, of both as near the even one.
    const unsigned bits = __float_as_uint(x), below = bits >> 16, rest = bits & 0xffff;
    return {(unsigned short)(rest > 0x8000 || (rest == 0x8000 && below % 2) ? below + 1 : below)};
}

// Pairs of numbers of 16 bits. Sums and products of two are exact in binary32 or rounded there to far more bits.
struct float2 { float x, y; };

inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    const unsigned long long bytes = x | (unsigned long long)y << 32;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return result;
}

#define DEFINE_PAIRS(Pair, Element, WIDEN, NARROW, JOIN, SPLIT, TWICE, ROUND)                                          \
    struct Pair { Element x, y; };                                                                                             \
    inline Pair JOIN(Element x, Element y) { return {x, y}; }                                                                  \
    inline Pair TWICE(float x) { return {NARROW(x), NARROW(x)}; }                                                              \
    inline float2 SPLIT(Pair pair) { return {WIDEN(pair.x), WIDEN(pair.y)}; }                                                  \
    inline Pair ROUND(float2 pair) { return {NARROW(pair.x), NARROW(pair.y)}; }                                                \
    inline Pair __hsub2(Pair a, Pair b)                                                                                        \
    {                                                                                                                          \
        return {NARROW(WIDEN(a.x) - WIDEN(b.x)), NARROW(WIDEN(a.y) - WIDEN(b.y))};                                             \
    }                                                                                                                          \
    inline Pair __hmul2(Pair a, Pair b)                                                                                        \
    {                                                                                                                          \
        return {NARROW(WIDEN(a.x) * WIDEN(b.x)), NARROW(WIDEN(a.y) * WIDEN(b.y))};                                             \
    }                                                                                                                          \
    inline Pair __hfma2(Pair a, Pair b, Pair c)                                                                                \
    {                                                                                                                          \
        return {NARROW(fmaf(WIDEN(a.x), WIDEN(b.x), WIDEN(c.x))), NARROW(fmaf(WIDEN(a.y), WIDEN(b.y), WIDEN(c.y)))};           \
    }
DEFINE_PAIRS(__half2, __half, __half2float, __float2half_rn, __halves2half2, __half22float2, __float2half2_rn,
             __float22half2_rn)
DEFINE_PAIRS(__nv_bfloat162, __nv_bfloat16, __bfloat162float, __float2bfloat16_rn, __halves2bfloat162, __bfloat1622float2,
             __float2bfloat162_rn, __float22bfloat162_rn)
#undef DEFINE_PAIRS
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return {x, x}; }
