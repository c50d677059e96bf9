// What main.cpp needs of the host: OpenCL without ceremony, and arrays in files as NumPy writes them.
#pragma once

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <string>
#include <vector>

using Bytes = std::vector<char>;

[[noreturn]] inline void fail(const std::string &what)
{
    std::fprintf(stderr, "error: %s\n", what.c_str());
    std::exit(1);
}

inline void check(cl_int code, const char *what)
{
    if (code != CL_SUCCESS) fail(std::string(what) + " failed with OpenCL error " + std::to_string(code));
}

inline Bytes read_file(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    if (!file) fail("cannot open " + path);
    return Bytes(std::istreambuf_iterator<char>(file), {});
}

// The elements of an array in a .npy file, which must be as many bytes as wanted.
inline Bytes read_npy(const std::string &path, size_t bytes)
{
    const Bytes file = read_file(path);
    if (file.size() < 10 || std::memcmp(file.data(), "\x93NUMPY", 6) != 0) fail(path + " is no .npy file");
    const auto byte = [&](size_t at) { return size_t(uint8_t(file[at])); };
    const size_t header = file[6] == 1 ? 10 + byte(8) + byte(9) * 256 : 12 + byte(8) + byte(9) * 256 + byte(10) * 65536;
    if (file.size() != header + bytes)
        fail(path + " holds " + std::to_string(file.size() - header) + " bytes and not " + std::to_string(bytes));
    return Bytes(file.begin() + header, file.end());
}

inline void write_npy(const std::string &path, const char *descr, const std::string &shape, const Bytes &elements)
{
    std::string header = std::string("{'descr': '") + descr + "', 'fortran_order': False, 'shape': (" + shape + "), }";
    header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
    header += '\n';
    std::ofstream file(path, std::ios::binary);
    file.write("\x93NUMPY\x01\x00", 8);
    const char length[2] = {char(header.size() & 255), char(header.size() >> 8)};
    file.write(length, 2);
    file << header;
    file.write(elements.data(), std::streamsize(elements.size()));
    if (!file.flush()) fail("cannot write " + path);
}

// The first device of the first platform that has one, and memory for the model's weights and for its values.
class Device {
public:
    Device(const std::string &source, size_t weights, size_t values)
    {
        cl_platform_id platforms[16];
        cl_uint count = 0;
        check(clGetPlatformIDs(16, platforms, &count), "looking for platforms");
        bool found = false;
        for (cl_uint i = 0; i < count && i < 16 && !found; ++i)
            found = clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, 1, &device, nullptr) == CL_SUCCESS;
        if (!found) fail("there is no OpenCL device");
        cl_int code;
        context = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &code);
        check(code, "making a context");
        queue = clCreateCommandQueue(context, device, 0, &code);
        check(code, "making a queue");
        const Bytes text = read_file(source);
        const char *start = text.data();
        const size_t length = text.size();
        program = clCreateProgramWithSource(context, 1, &start, &length, &code);
        check(code, "reading kernels");
        if (clBuildProgram(program, 1, &device, "-cl-std=CL1.2", nullptr, nullptr) != CL_SUCCESS) {
            size_t size = 0;
            clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, 0, nullptr, &size);
            Bytes log(size + 1, '\0');
            clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, size, log.data(), nullptr);
            fail(std::string("the kernels do not compile:\n") + log.data());
        }
        memory[0] = clCreateBuffer(context, CL_MEM_READ_ONLY, weights ? weights : 1, nullptr, &code);
        check(code, "making room for weights");
        memory[1] = clCreateBuffer(context, CL_MEM_READ_WRITE, values ? values : 1, nullptr, &code);
        check(code, "making room for values");
    }

    // A part of the memory for weights (0) or for values (1).
    cl_mem part(int of, size_t offset, size_t bytes) const
    {
        cl_int code;
        const cl_buffer_region region = {offset, bytes};
        cl_mem buffer = clCreateSubBuffer(memory[of], 0, CL_BUFFER_CREATE_TYPE_REGION, &region, &code);
        check(code, "dividing memory");
        return buffer;
    }

    void write(int of, size_t offset, const Bytes &bytes) const
    {
        if (bytes.empty()) return;
        check(clEnqueueWriteBuffer(queue, memory[of], CL_TRUE, offset, bytes.size(), bytes.data(), 0, nullptr, nullptr),
              "writing memory");
    }

    Bytes read(int of, size_t offset, size_t size) const
    {
        Bytes bytes(size);
        check(clEnqueueReadBuffer(queue, memory[of], CL_TRUE, offset, size, bytes.data(), 0, nullptr, nullptr),
              "reading memory");
        return bytes;
    }

    cl_kernel kernel(const char *name) const
    {
        cl_int code;
        cl_kernel kernel = clCreateKernel(program, name, &code);
        check(code, name);
        return kernel;
    }

    // Launches so many blocks of so many threads. Launches run one after another.
    void launch(cl_kernel kernel, size_t x, size_t y, size_t z, size_t threads, std::initializer_list<cl_mem> buffers) const
    {
        cl_uint place = 0;
        for (const cl_mem &buffer : buffers) check(clSetKernelArg(kernel, place++, sizeof buffer, &buffer), "passing a buffer");
        const size_t global[3] = {x * threads, y, z}, local[3] = {threads, 1, 1};
        check(clEnqueueNDRangeKernel(queue, kernel, 3, nullptr, global, local, 0, nullptr, nullptr), "launching a kernel");
    }

private:
    cl_device_id device = nullptr;
    cl_context context = nullptr;
    cl_command_queue queue = nullptr;
    cl_program program = nullptr;
    cl_mem memory[2] = {};
};
