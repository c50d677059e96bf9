// What one lane of the vector unit computes, for the simulation to call through DPI-C.
//
// A number travels in 64 bits and belongs to a class: 0 is binary32 (its bits in the low half, the upper half zero),
// 1 binary64, 2 signed and 3 unsigned 64 bits. Types of elements and functions are numbered in the order in which
// `DType::ALL`, `UnaryFn::ALL` and `BinaryFn::ALL` list them; folds are sum 0, product 1, max 2, min 3, dot 4.
//
// A NaN that a function here returns is always the canonical quiet one of its type. A copy between equal types, which
// keeps the bits of a NaN, must therefore go by the unsigned type of the same width.

#ifndef LANES_H
#define LANES_H

extern "C" {

// The class in which elements of a type are computed, and their width in bits.
int lane_class(int dtype);
int lane_bits(int dtype);

// Bits of an element to a number of any class, and back, both as casts do. Bits above the element's width are ignored
// on the way in and zero on the way out.
unsigned long long lane_load(int dtype, int klass, unsigned long long bits);
unsigned long long lane_encode(int klass, unsigned long long number, int dtype);

// A number that an instruction gives in place of a source: the bits of a binary64, or a signed integer.
unsigned long long lane_float(int klass, unsigned long long binary64_bits);
unsigned long long lane_integer(int klass, unsigned long long value);

// Functions of one operand and of two. `truth` says that x is a truth value; `bits` is the width of the operands' type.
// A division of integers by zero, at which the machine must stop, gives 0. A function that the class does not define
// gives its (first) operand, but for one of an integer, which is taken for `not`.
unsigned long long lane_unary(int klass, int function, unsigned long long x, int truth);
unsigned long long lane_binary(int klass, int function, unsigned long long a, unsigned long long b, int bits);

// Comparisons, which give 1 or 0 whatever the class; any other function is taken for `eq`.
int lane_is_comparison(int function);
int lane_compare(int klass, int function, unsigned long long a, unsigned long long b);

// What a fold of elements of a type starts from, and one of its steps; that of a dot product is the addition.
unsigned long long lane_neutral(int klass, int fold, int dtype);
unsigned long long lane_combine(int klass, int fold, unsigned long long a, unsigned long long b);

// -1, 0 or 1 as a sorts before, with or behind b: NaN is greatest and equal to itself, zeros are equal.
int lane_order(int klass, unsigned long long a, unsigned long long b);

// Whether a map runs at the rate of special functions. Kinds are copy 0, unary 1, binary 2, select 3.
int lane_is_special(int kind, int function);

// An element of a float type as the array takes it: rounded to bf16, given as binary32.
unsigned int lane_bf16_round(int dtype, unsigned long long bits);
}

#endif
