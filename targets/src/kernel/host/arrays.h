// What a program needs of the host: arrays in files as NumPy writes them.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

using Bytes = std::vector<char>;

[[noreturn]] inline void fail(const std::string &what)
{
    std::fprintf(stderr, "error: %s\n", what.c_str());
    std::exit(1);
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
