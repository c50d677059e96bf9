// What main.cpp needs of the host: OpenCL without ceremony, and arrays in files as NumPy writes them.
#pragma once

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include <array>
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

inline Bytes read_weights(const std::string &path, size_t bytes)
{
    Bytes weights = read_file(path);
    if (weights.size() != bytes)
        fail(path + " holds " + std::to_string(weights.size()) + " bytes and not " + std::to_string(bytes));
    return weights;
}

// The elements of an array in a .npy file, which must be of the type that is wanted, row by row, and as many bytes.
inline Bytes read_npy(const std::string &path, const std::string &descr, size_t bytes)
{
    const Bytes file = read_file(path);
    if (file.size() < 12 || std::memcmp(file.data(), "\x93NUMPY", 6) != 0) fail(path + " is no .npy file");
    const auto byte = [&](size_t at) { return size_t(uint8_t(file[at])); };
    const size_t start = file[6] == 1 ? 10 : 12;
    const size_t header = start + byte(8) + byte(9) * 256 + (start == 12 ? byte(10) * 65536 : 0);
    if (file.size() < header) fail(path + " ends in its header");
    const std::string text(file.begin() + start, file.begin() + header);
    if (text.find("'" + descr + "'") == std::string::npos) fail(path + " must hold elements of type " + descr);
    if (text.find("'fortran_order': True") != std::string::npos) fail(path + " must hold its elements row by row");
    if (file.size() != header + bytes)
        fail(path + " holds " + std::to_string(file.size() - header) + " bytes and not " + std::to_string(bytes));
    return Bytes(file.begin() + header, file.end());
}

inline void write_npy(const std::string &path, const char *descr, const std::string &shape, const Bytes &elements)
{
    std::string header = std::string("{'descr': '") + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
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
