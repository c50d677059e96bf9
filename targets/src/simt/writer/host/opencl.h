// What main.cpp needs of the host: OpenCL without ceremony.
#pragma once

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include <array>
#include <initializer_list>

#include "../arrays.h"

inline void check(cl_int code, const char *what)
{
    if (code != CL_SUCCESS) fail(std::string(what) + " failed with OpenCL error " + std::to_string(code));
}

// The first device of the first platform that has one, and memory for the model's weights and for its values.
class Device {
public:
    Device(const std::string &source, const Bytes &weights, size_t values)
    {
        find();
        cl_int code;
        context = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &code);
        check(code, "making a context");
        queue = clCreateCommandQueue(context, device, 0, &code);
        check(code, "making a queue");
        build(read_file(source));
        constant = clCreateBuffer(context, CL_MEM_READ_ONLY, weights.empty() ? 1 : weights.size(), nullptr, &code);
        check(code, "making room for weights");
        variable = clCreateBuffer(context, CL_MEM_READ_WRITE, values ? values : 1, nullptr, &code);
        check(code, "making room for values");
        write(constant, weights);
    }

    // A part of the weights.
    cl_mem weights(size_t offset, size_t bytes) const { return part(constant, offset, bytes); }

    // A part of the memory for values.
    cl_mem values(size_t offset, size_t bytes) const { return part(variable, offset, bytes); }

    void write(cl_mem buffer, const Bytes &bytes) const
    {
        if (bytes.empty()) return;
        check(clEnqueueWriteBuffer(queue, buffer, CL_TRUE, 0, bytes.size(), bytes.data(), 0, nullptr, nullptr),
              "writing memory");
    }

    Bytes read(cl_mem buffer, size_t size) const
    {
        Bytes bytes(size);
        if (bytes.empty()) return bytes;
        check(clEnqueueReadBuffer(queue, buffer, CL_TRUE, 0, size, bytes.data(), 0, nullptr, nullptr), "reading memory");
        return bytes;
    }

    // Launches so many blocks of so many threads. Launches run one after another.
    void launch(const char *name, const std::array<size_t, 3> &blocks, size_t threads,
                std::initializer_list<cl_mem> buffers) const
    {
        cl_int code;
        const cl_kernel kernel = clCreateKernel(program, name, &code);
        check(code, name);
        cl_uint place = 0;
        for (const cl_mem &buffer : buffers) check(clSetKernelArg(kernel, place++, sizeof buffer, &buffer), name);
        const size_t global[3] = {blocks[0] * threads, blocks[1], blocks[2]}, local[3] = {threads, 1, 1};
        check(clEnqueueNDRangeKernel(queue, kernel, 3, nullptr, global, local, 0, nullptr, nullptr), name);
        // It is kept until it has run.
        clReleaseKernel(kernel);
    }

private:
    void find()
    {
        cl_platform_id platforms[16];
        cl_uint count = 0;
        check(clGetPlatformIDs(16, platforms, &count), "looking for platforms");
        for (cl_uint i = 0; i < count && i < 16; ++i)
            if (clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, 1, &device, nullptr) == CL_SUCCESS) return;
        fail("there is no OpenCL device");
    }

    void build(const Bytes &text)
    {
        cl_int code;
        const char *start = text.data();
        const size_t length = text.size();
        program = clCreateProgramWithSource(context, 1, &start, &length, &code);
        check(code, "reading kernels");
        // Quotients and roots are rounded as the model wants them where the device can do that.
        cl_device_fp_config floats = 0;
        clGetDeviceInfo(device, CL_DEVICE_SINGLE_FP_CONFIG, sizeof floats, &floats, nullptr);
        std::string options = "-cl-std=CL1.2";
        if (floats & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT) options += " -cl-fp32-correctly-rounded-divide-sqrt";
        if (clBuildProgram(program, 1, &device, options.c_str(), nullptr, nullptr) == CL_SUCCESS) return;
        size_t size = 0;
        clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, 0, nullptr, &size);
        Bytes log(size + 1, '\0');
        clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, size, log.data(), nullptr);
        fail(std::string("the kernels do not compile:\n") + log.data());
    }

    cl_mem part(cl_mem memory, size_t offset, size_t bytes) const
    {
        cl_int code;
        const cl_buffer_region region = {offset, bytes};
        const cl_mem buffer = clCreateSubBuffer(memory, 0, CL_BUFFER_CREATE_TYPE_REGION, &region, &code);
        check(code, "dividing memory");
        return buffer;
    }

    cl_device_id device = nullptr;
    cl_context context = nullptr;
    cl_command_queue queue = nullptr;
    cl_program program = nullptr;
    cl_mem constant = nullptr, variable = nullptr;
};
