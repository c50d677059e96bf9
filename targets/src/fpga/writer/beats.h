// Beats of external memory, and the elements in them.
#pragma once

#include <ap_int.h>
#include <hls_stream.h>

#include <cstdint>

// What a channel gives or takes in one cycle.
typedef ap_uint<512> Beat;

inline unsigned bits_of_float(float value)
{
    union {
        float number;
        unsigned bits;
    } both;
    both.number = value;
    return both.bits;
}

inline float float_of_bits(unsigned bits)
{
    union {
        unsigned bits;
        float number;
    } both;
    both.bits = bits;
    return both.number;
}

// Elements as they are stored: how many bits, and what those mean.
template <typename Element> struct Stored {
    static const int width = 8 * sizeof(Element);
    static Element of(const ap_uint<width> &bits) { return Element(bits.to_uint64()); }
    static ap_uint<width> bits(Element value) { return ap_uint<width>(value); }
};

template <> struct Stored<float> {
    static const int width = 32;
    static float of(const ap_uint<32> &bits) { return float_of_bits(bits.to_uint()); }
    static ap_uint<32> bits(float value) { return ap_uint<32>(bits_of_float(value)); }
};

template <> struct Stored<double> {
    union Both {
        double number;
        unsigned long long bits;
    };
    static const int width = 64;
    static double of(const ap_uint<64> &bits)
    {
        Both both;
        both.bits = bits.to_uint64();
        return both.number;
    }
    static ap_uint<64> bits(double value)
    {
        Both both;
        both.number = value;
        return ap_uint<64>(both.bits);
    }
};

// Whatever a file holds, what is not 0 is true.
template <> struct Stored<bool> {
    static const int width = 8;
    static bool of(const ap_uint<8> &bits) { return bits != 0; }
    static ap_uint<8> bits(bool value) { return ap_uint<8>(value); }
};

template <> struct Stored<ap_int<4>> {
    static const int width = 4;
    static ap_int<4> of(const ap_uint<4> &bits) { return ap_int<4>(bits); }
    static ap_uint<4> bits(const ap_int<4> &value) { return ap_uint<4>(value); }
};

template <> struct Stored<ap_uint<4>> {
    static const int width = 4;
    static ap_uint<4> of(const ap_uint<4> &bits) { return bits; }
    static ap_uint<4> bits(const ap_uint<4> &value) { return value; }
};

template <typename Element> inline Element get_element(const Beat &beat, int slot)
{
#pragma HLS INLINE
    const int width = Stored<Element>::width;
    const ap_uint<width> bits = beat.range(slot * width + width - 1, slot * width);
    return Stored<Element>::of(bits);
}

template <typename Element> inline void put_element(Beat &beat, int slot, const Element &value)
{
#pragma HLS INLINE
    const int width = Stored<Element>::width;
    beat.range(slot * width + width - 1, slot * width) = Stored<Element>::bits(value);
}

// Takes beats that have come through channels, of which each has as many of them as the others.
template <int CHANNELS, int BEATS> inline void take_rows(hls::stream<Beat> (&from)[CHANNELS], Beat (&to)[BEATS])
{
#pragma HLS INLINE
    for (int beat = 0; beat < BEATS; ++beat) {
#pragma HLS UNROLL
        to[beat] = from[beat % CHANNELS].read();
    }
}

// Takes beats that have come through some of the channels, whose turn it is.
template <int CHANNELS, int BEATS>
inline void take_turn(hls::stream<Beat> (&from)[CHANNELS], Beat (&to)[BEATS], int &turn)
{
#pragma HLS INLINE
    for (int channel = 0; channel < CHANNELS; ++channel) {
#pragma HLS UNROLL
        if (channel / BEATS == turn) to[channel % BEATS] = from[channel].read();
    }
    turn = turn + 1 == CHANNELS / BEATS ? 0 : turn + 1;
}

// Takes the next part of a beat, which is kept until all of its parts have been taken.
template <int CHANNELS, int PARTS>
inline void take_part(hls::stream<Beat> (&from)[CHANNELS], Beat (&to)[1], Beat &kept, int &part, int &turn)
{
#pragma HLS INLINE
    if (part == 0) {
        Beat next[1];
        take_turn<CHANNELS, 1>(from, next, turn);
        kept = next[0];
    }
    to[0] = kept >> (part * (512 / PARTS));
    part = part + 1 == PARTS ? 0 : part + 1;
}

// What a process of the loader is told: to which FIFO so many beats of its channel go, of which it leaves out the last if its number is
// not below `last`; or, before that, where beats that follow each other begin and how many they are.
struct Load {
    unsigned where, rows, last;
};
