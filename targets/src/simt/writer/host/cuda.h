// What main.cu needs of the host: CUDA without ceremony.
#pragma once

#include <cuda_runtime.h>

#include "../arrays.h"

inline void check(cudaError_t code, const char *what)
{
    if (code != cudaSuccess) fail(std::string(what) + " failed: " + cudaGetErrorString(code));
}

// The current device, and its memory for the model's weights and for its values.
class Device {
public:
    Device(const Bytes &weights, size_t values)
    {
        check(cudaMalloc(&constant, weights.empty() ? 1 : weights.size()), "making room for weights");
        check(cudaMalloc(&variable, values ? values : 1), "making room for values");
        write(constant, weights);
    }

    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;

    ~Device()
    {
        cudaFree(constant);
        cudaFree(variable);
    }

    // A part of the weights.
    void *weights(size_t offset) const { return static_cast<char *>(constant) + offset; }

    // A part of the memory for values.
    void *values(size_t offset) const { return static_cast<char *>(variable) + offset; }

    void write(void *buffer, const Bytes &bytes) const
    {
        if (bytes.empty()) return;
        check(cudaMemcpy(buffer, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "writing memory");
    }

    Bytes read(const void *buffer, size_t size) const
    {
        Bytes bytes(size);
        if (bytes.empty()) return bytes;
        check(cudaMemcpy(bytes.data(), buffer, size, cudaMemcpyDeviceToHost), "reading memory");
        return bytes;
    }

    // Launches so many blocks of so many threads, with so many bytes of shared memory beside what the kernel declares. Launches
    // run one after another.
    template <typename... Parameters, typename... Buffers>
    void launch(void (*kernel)(Parameters...), const dim3 &blocks, unsigned threads, size_t shared, Buffers... buffers) const
    {
        static_assert(sizeof...(Parameters) == sizeof...(Buffers), "a buffer for each parameter");
        if (shared)
            check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)), "taking shared memory");
        void *arguments[] = {&buffers...};
        check(cudaLaunchKernel(kernel, blocks, dim3(threads), arguments, shared, cudaStream_t(nullptr)), "launching a kernel");
    }

private:
    void *constant = nullptr, *variable = nullptr;
};
