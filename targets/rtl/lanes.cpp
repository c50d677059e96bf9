// Arithmetic of one lane of the vector unit; see lanes.h for the interface.
//
// It is written apart from the Rust simulator and must give the same bits, so every operation stands for itself: no
// contraction to fused multiply-adds (compile with -ffp-contract=off), no wider intermediate results, no shortcuts for
// speed. Elementary functions are those of the system's mathematical library, which the simulator calls too. The error
// function, which it takes from elsewhere, is computed here.

#include "lanes.h"

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#ifdef __FAST_MATH__
#error "the results must be those of IEEE 754"
#endif
static_assert(FLT_EVAL_METHOD == 0, "every operation must round to the type of its operands");

namespace {

// ---- Types, classes, functions -------------------------------------------------------------------------------------

enum DType { F64, F32, F16, BF16, F8E4M3, F8E5M2, I64, I32, I16, I8, I4, U64, U32, U16, U8, U4, Bool };

enum Class { Binary32, Binary64, Signed, Unsigned };

enum Unary {
    Abs, Ceil, Cos, Erf, Exp, Floor, IsInf, IsNan, Log, Neg, Not, Recip, Round, Rsqrt, Sigmoid, Sign, Sin, Softplus,
    Sqrt, Tan, Tanh
};

enum Binary { Add, And, Div, Eq, Ge, Gt, Le, Lt, Max, Min, Mod, Mul, Or, Pow, Rem, Shl, Shr, Sub, Xor };

enum Fold { FoldSum, FoldProduct, FoldMax, FoldMin, FoldDot };

enum Kind { KindCopy, KindUnary, KindBinary, KindSelect };

int width_of(int dtype) {
    switch (dtype) {
    case F64: case I64: case U64: return 64;
    case F32: case I32: case U32: return 32;
    case F16: case BF16: case I16: case U16: return 16;
    case I4: case U4: return 4;
    default: return 8;
    }
}

Class class_of(int dtype) {
    if (dtype == F64) return Binary64;
    if (dtype <= F8E5M2) return Binary32;
    return dtype <= I4 ? Signed : Unsigned;
}

// ---- Registers -----------------------------------------------------------------------------------------------------

template <typename To, typename From>
To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <typename C>
C unpack(uint64_t number) {
    if constexpr (std::is_same_v<C, float>) {
        return bits_as<float>(static_cast<uint32_t>(number));
    } else {
        return bits_as<C>(number);
    }
}

// Sign and payload of a NaN that arithmetic made are the compiler's choice; so it leaves as the canonical one.
uint64_t pack(float value) { return std::isnan(value) ? 0x7fc00000 : bits_as<uint32_t>(value); }
uint64_t pack(double value) { return std::isnan(value) ? 0x7ff8000000000000 : bits_as<uint64_t>(value); }
uint64_t pack(int64_t value) { return static_cast<uint64_t>(value); }
uint64_t pack(uint64_t value) { return value; }

// Calls `f` with a value of the C++ type of a class, which tells it that type.
template <typename F>
auto in_class(int klass, F f) {
    switch (klass) {
    case Binary32: return f(float{});
    case Binary64: return f(double{});
    case Signed: return f(int64_t{});
    default: return f(uint64_t{});
    }
}

// ---- Conversions ---------------------------------------------------------------------------------------------------

uint64_t mask_of(int width) { return ~uint64_t{0} >> (64 - width); }

// Truncates towards zero, saturates at the ends of an integer type, takes NaN to 0. The bits are sign-extended.
uint64_t truncated(double value, int width, bool is_signed) {
    const double above = std::ldexp(1.0, is_signed ? width - 1 : width);
    const double lowest = is_signed ? -above : 0.0;
    if (std::isnan(value)) return 0;
    if (value >= above) return mask_of(is_signed ? width - 1 : width);
    if (value <= lowest) return is_signed ? ~mask_of(width - 1) : 0;
    return is_signed ? static_cast<uint64_t>(static_cast<int64_t>(value)) : static_cast<uint64_t>(value);
}

// Converts between classes. An integer becomes a float with one rounding, to nearest even.
template <typename To, typename From>
To converted(From value) {
    if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
        return static_cast<To>(truncated(value, 64, std::is_signed_v<To>));
    } else {
        return static_cast<To>(value);
    }
}

// A float type narrower than binary32.
struct Format {
    int exponent_bits;
    int fraction_bits;
    uint32_t not_a_number;
    // The greatest code that a number may round to, which larger ones and infinity get: infinity where numbers
    // overflow, the greatest number where they saturate.
    uint32_t greatest;
    // The first code above all numbers and infinity, sign aside.
    uint32_t first_nan;
    bool has_infinity;

    int bias() const { return (1 << (exponent_bits - 1)) - 1; }
    uint32_t sign_bit() const { return 1u << (exponent_bits + fraction_bits); }
};

Format format_of(int dtype) {
    switch (dtype) {
    case F16: return {5, 10, 0x7e00, 0x7c00, 0x7c01, true};
    case BF16: return {8, 7, 0x7fc0, 0x7f80, 0x7f81, true};
    case F8E4M3: return {4, 3, 0x7f, 0x7e, 0x7f, false};
    default: return {5, 2, 0x7e, 0x7b, 0x7d, true};
    }
}

float widened(const Format &format, uint32_t code) {
    const uint32_t magnitude = code & (format.sign_bit() - 1);
    if (magnitude >= format.first_nan) return std::numeric_limits<float>::quiet_NaN();
    const int field = static_cast<int>(magnitude >> format.fraction_bits);
    const uint32_t fraction = magnitude & ((1u << format.fraction_bits) - 1);
    float value;
    if (format.has_infinity && magnitude + 1 == format.first_nan) {
        value = std::numeric_limits<float>::infinity();
    } else {
        // A subnormal has the exponent of the least normals but not their leading one. All of this is exact.
        const uint32_t significand = field == 0 ? fraction : fraction | (1u << format.fraction_bits);
        const int exponent = (field == 0 ? 1 : field) - format.bias() - format.fraction_bits;
        value = std::ldexp(static_cast<float>(significand), exponent);
    }
    return (code & format.sign_bit()) != 0 ? -value : value;
}

uint32_t narrowed(const Format &format, float value) {
    constexpr int FRACTION_BITS = 23;
    constexpr int BIAS = 127;
    if (std::isnan(value)) return format.not_a_number;
    const uint32_t bits = bits_as<uint32_t>(value);
    const uint32_t sign = (bits >> 31) != 0 ? format.sign_bit() : 0;
    const uint32_t magnitude = bits & 0x7fffffff;
    const int field = static_cast<int>(magnitude >> FRACTION_BITS);
    const uint32_t fraction = magnitude & ((1u << FRACTION_BITS) - 1);
    if (field == 0xff) return sign | format.greatest;
    const uint64_t significand = field == 0 ? fraction : fraction | (1u << FRACTION_BITS);
    const int exponent = (field == 0 ? 1 : field) - BIAS;
    // Below the least normal exponent the spacing of the codes stays what it is there.
    const int least = 1 - format.bias();
    const int octave = exponent > least ? exponent - least : 0;
    const int below = exponent < least ? least - exponent : 0;
    const int dropped = FRACTION_BITS - format.fraction_bits + below;
    // Of numbers further below, not even a half of the least code is left.
    if (dropped > FRACTION_BITS + 1) return sign;
    const uint64_t half = uint64_t{1} << (dropped - 1);
    const uint64_t odd = (significand >> dropped) & 1;
    const uint64_t kept = (significand + half - 1 + odd) >> dropped;
    // The leading one of a normal number counts as one octave; a carry out of the fraction goes to the next.
    const uint64_t code = (static_cast<uint64_t>(octave) << format.fraction_bits) + kept;
    return sign | (code < format.greatest ? static_cast<uint32_t>(code) : format.greatest);
}

bool is_signed(int dtype) { return dtype >= I64 && dtype <= I4; }

template <typename C>
C load(int dtype, uint64_t element) {
    const int width = width_of(dtype);
    const uint64_t bits = element & mask_of(width);
    switch (dtype) {
    case F64: return converted<C>(bits_as<double>(bits));
    case F32: return converted<C>(bits_as<float>(static_cast<uint32_t>(bits)));
    case F16: case BF16: case F8E4M3: case F8E5M2:
        return converted<C>(widened(format_of(dtype), static_cast<uint32_t>(bits)));
    case Bool: return bits != 0 ? C{1} : C{0};
    default: break;
    }
    if (!is_signed(dtype)) return converted<C>(bits);
    const uint64_t sign = uint64_t{1} << (width - 1);
    return converted<C>(static_cast<int64_t>((bits ^ sign) - sign));
}

template <typename C>
uint64_t encode(C value, int dtype) {
    switch (dtype) {
    case F64: return pack(static_cast<double>(value));
    case F32: return pack(static_cast<float>(value));
    case F16: case BF16: case F8E4M3: case F8E5M2: return narrowed(format_of(dtype), static_cast<float>(value));
    case Bool: return value != C{0} ? 1 : 0;
    default: break;
    }
    const int width = width_of(dtype);
    if constexpr (std::is_floating_point_v<C>) {
        return truncated(value, width, is_signed(dtype)) & mask_of(width);
    } else {
        return static_cast<uint64_t>(value) & mask_of(width);
    }
}

// ---- The error function --------------------------------------------------------------------------------------------
//
// The rational approximations of Sun's fdlibm, as the simulator's error function computes them, with the exponential of
// that library; those of the system differ in the last bit. The order of roundings is part of the result.

// c[0] + x (c[1] + x (c[2] + ...)). Coefficients of binary32 are those of binary64, rounded.
template <typename C, int N>
C polynomial(C x, const double (&coefficients)[N]) {
    C sum = static_cast<C>(coefficients[N - 1]);
    for (int index = N - 2; index >= 0; --index) sum = static_cast<C>(coefficients[index]) + x * sum;
    return sum;
}

// What of the exponential depends on the precision: ln 2 in two parts, 1 / ln 2, the polynomial in x^2, and where the
// argument counts as small or tiny.
template <typename C>
struct Exponential;

template <>
struct Exponential<float> {
    static constexpr float LN2_HIGH = 0x1.62e4p-1f, LN2_LOW = 0x1.7f7d1cp-20f, PER_LN2 = 0x1.715476p+0f;
    static constexpr double COEFFICIENTS[] = {0x1.55551ep-3, -0x1.6aa42ap-9};
    // Magnitudes up to the first need no reduction; those above the second, a multiple of ln 2 found by division.
    static constexpr float HALF_LN2 = 0x1.62e430p-2f, MUCH = 0x1.0a2b24p+0f, TINY = 0x1p-13f;
    static bool is_large(float magnitude) { return magnitude > HALF_LN2; }
    static bool is_much(float magnitude) { return magnitude > MUCH; }
    static bool is_tiny(float magnitude) { return magnitude <= TINY; }
};

template <>
struct Exponential<double> {
    static constexpr double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;
    static constexpr double PER_LN2 = 1.44269504088896338700e+00;
    static constexpr double COEFFICIENTS[] = {1.66666666666666019037e-01, -2.77777777770155933842e-03,
                                              6.61375632143793436117e-05, -1.65339022054652515390e-06,
                                              4.13813679705723846039e-08};
    // Only the upper half of the argument is looked at.
    static uint32_t upper(double magnitude) { return static_cast<uint32_t>(bits_as<uint64_t>(magnitude) >> 32); }
    static bool is_large(double magnitude) { return upper(magnitude) > 0x3fd62e42; }
    static bool is_much(double magnitude) { return upper(magnitude) >= 0x3ff0a2b2; }
    static bool is_tiny(double magnitude) { return upper(magnitude) <= 0x3e300000; }
};

// e^x, for arguments whose result is neither near overflow nor near underflow.
template <typename C>
C exponential(C x) {
    using E = Exponential<C>;
    const C magnitude = std::fabs(x);
    const bool negative = std::signbit(x);
    int power = 0;
    C high = x, low = 0;
    if (E::is_large(magnitude)) {
        const C half = negative ? C(-0.5) : C(0.5);
        power = E::is_much(magnitude) ? static_cast<int>(E::PER_LN2 * x + half) : negative ? -1 : 1;
        high = x - static_cast<C>(power) * E::LN2_HIGH;
        low = static_cast<C>(power) * E::LN2_LOW;
        x = high - low;
    } else if (E::is_tiny(magnitude)) {
        return C(1) + x;
    }
    const C square = x * x;
    const C c = x - square * polynomial(square, E::COEFFICIENTS);
    const C y = C(1) + (x * c / (C(2) - c) - low + high);
    return std::ldexp(y, power);
}

// The upper bits of a number, few enough for their square to be exact; and whether a magnitude is below 1 / 0.35.
float head(float x) { return bits_as<float>(bits_as<uint32_t>(x) & 0xffffe000); }
double head(double x) { return bits_as<double>(bits_as<uint64_t>(x) & 0xffffffff00000000); }
bool is_near(float magnitude) { return magnitude < 0x1.6db6dap+1f; }
bool is_near(double magnitude) { return magnitude < 0x1.6db6dp+1; }

// 1 - erf x for x from 0.84375 to below 6.
template <typename C>
C complement(C x) {
    if (x < C(1.25)) {
        constexpr double P[] = {-2.36211856075265944077e-03, 4.14856118683748331666e-01, -3.72207876035701323847e-01,
                                3.18346619901161753674e-01,  -1.10894694282396677476e-01, 3.54783043256182359371e-02,
                                -2.16637559486879084300e-03};
        constexpr double Q[] = {1.0,
                                1.06420880400844228286e-01,
                                5.40397917702171048937e-01,
                                7.18286544141962662868e-02,
                                1.26171219808761642112e-01,
                                1.36370839120290507362e-02,
                                1.19844998467991074170e-02};
        constexpr double AT_ONE = 8.45062911510467529297e-01;
        const C s = x - C(1);
        return C(1) - static_cast<C>(AT_ONE) - polynomial(s, P) / polynomial(s, Q);
    }
    const C s = C(1) / (x * x);
    C quotient;
    if (is_near(x)) {
        constexpr double R[] = {-9.86494403484714822705e-03, -6.93858572707181764372e-01, -1.05586262253232909814e+01,
                                -6.23753324503260060396e+01, -1.62396669462573470355e+02, -1.84605092906711035994e+02,
                                -8.12874355063065934246e+01, -9.81432934416914548592e+00};
        constexpr double S[] = {1.0,
                                1.96512716674392571292e+01,
                                1.37657754143519042600e+02,
                                4.34565877475229228821e+02,
                                6.45387271733267880336e+02,
                                4.29008140027567833386e+02,
                                1.08635005541779435134e+02,
                                6.57024977031928170135e+00,
                                -6.04244152148580987438e-02};
        quotient = polynomial(s, R) / polynomial(s, S);
    } else {
        constexpr double R[] = {-9.86494292470009928597e-03, -7.99283237680523006574e-01, -1.77579549177547519889e+01,
                                -1.60636384855821916062e+02, -6.37566443368389627722e+02, -1.02509513161107724954e+03,
                                -4.83519191608651397019e+02};
        constexpr double S[] = {1.0,
                                3.03380607434824582924e+01,
                                3.25792512996573918826e+02,
                                1.53672958608443695994e+03,
                                3.19985821950859553908e+03,
                                2.55305040643316442583e+03,
                                4.74528541206955367215e+02,
                                -2.24409524465858183362e+01};
        quotient = polynomial(s, R) / polynomial(s, S);
    }
    // e^(-x^2) as the product of two, for the rounding of x^2 would spoil it.
    const C z = head(x);
    return exponential(-z * z - C(0.5625)) * exponential((z - x) * (z + x) + quotient) / x;
}

template <typename C>
C error_function(C x) {
    const C magnitude = std::fabs(x);
    if (std::isnan(x)) return x;
    if (magnitude < C(0.84375)) {
        constexpr double P[] = {1.28379167095512558561e-01, -3.25042107247001499370e-01, -2.84817495755985104766e-02,
                                -5.77027029648944159157e-03, -2.37630166566501626084e-05};
        constexpr double Q[] = {1.0,
                                3.97917223959155352819e-01,
                                6.50222499887672944485e-02,
                                5.08130628187576562776e-03,
                                1.32494738004321644526e-04,
                                -3.96022827877536812320e-06};
        constexpr double SLOPE_8 = 1.02703333676410069053e+00;
        // Scaled up, so that the products do not underflow.
        if (magnitude < C(0x1p-28)) return C(0.125) * (C(8) * x + static_cast<C>(SLOPE_8) * x);
        const C z = x * x;
        return x + x * (polynomial(z, P) / polynomial(z, Q));
    }
    return std::copysign(magnitude < C(6) ? C(1) - complement(magnitude) : C(1), x);
}

// ---- Functions of one operand --------------------------------------------------------------------------------------

template <typename C>
C unary_of_float(int function, C x) {
    switch (function) {
    case Abs: return std::fabs(x);
    case Ceil: return std::ceil(x);
    case Cos: return std::cos(x);
    case Erf: return error_function(x);
    case Exp: return std::exp(x);
    case Floor: return std::floor(x);
    case IsInf: return std::isinf(x) ? C(1) : C(0);
    case IsNan: return std::isnan(x) ? C(1) : C(0);
    case Log: return std::log(x);
    case Neg: return -x;
    case Not: return x == C(0) ? C(1) : C(0);
    case Recip: return C(1) / x;
    case Round: return std::nearbyint(x);
    case Rsqrt: return C(1) / std::sqrt(x);
    case Sigmoid: return C(1) / (C(1) + std::exp(-x));
    case Sign: return x > C(0) ? C(1) : x < C(0) ? C(-1) : x;
    case Sin: return std::sin(x);
    case Softplus: return (x > C(0) ? x : C(0)) + std::log1p(std::exp(-std::fabs(x)));
    case Sqrt: return std::sqrt(x);
    case Tan: return std::tan(x);
    case Tanh: return std::tanh(x);
    default: return x;
    }
}

int64_t unary_of_integer(int function, int64_t x, bool) {
    const uint64_t negated = -static_cast<uint64_t>(x);
    switch (function) {
    case Abs: return x < 0 ? static_cast<int64_t>(negated) : x;
    case Neg: return static_cast<int64_t>(negated);
    case Sign: return (x > 0) - (x < 0);
    default: return ~x;
    }
}

uint64_t unary_of_integer(int function, uint64_t x, bool truth) {
    switch (function) {
    case Abs: return x;
    case Neg: return -x;
    case Sign: return x != 0;
    default: return truth ? x ^ 1 : ~x;
    }
}

// ---- Functions of two operands -------------------------------------------------------------------------------------

template <typename C>
C binary_of_float(int function, C a, C b) {
    switch (function) {
    case Add: return a + b;
    case Sub: return a - b;
    case Mul: return a * b;
    case Div: return a / b;
    // NaN if either is, the first of two equals.
    case Max: return std::isnan(a) || a >= b ? a : b;
    case Min: return std::isnan(a) || a <= b ? a : b;
    case Rem: return std::fmod(a, b);
    case Mod: {
        const C rest = std::fmod(a, b);
        return rest != C(0) && (rest < C(0)) != (b < C(0)) ? rest + b : rest;
    }
    case Pow: return std::pow(a, b);
    default: return a;
    }
}

uint64_t power(uint64_t base, uint64_t exponent) {
    // The machine knows no exponents beyond 32 bits; it takes the greatest for them.
    if (exponent > 0xffffffff) exponent = 0xffffffff;
    uint64_t product = 1;
    for (; exponent != 0; exponent >>= 1, base *= base) {
        if ((exponent & 1) != 0) product *= base;
    }
    return product;
}

// Negative powers truncate to 0 but for bases 1 and -1.
int64_t power(int64_t base, int64_t exponent) {
    if (exponent >= 0) return static_cast<int64_t>(power(static_cast<uint64_t>(base), static_cast<uint64_t>(exponent)));
    if (base == -1) return (exponent & 1) == 0 ? 1 : -1;
    return base == 1;
}

// Division truncates and wraps; the least number by -1 would trap.
int64_t quotient(int64_t a, int64_t b) {
    if (b == 0) return 0;
    return b == -1 ? static_cast<int64_t>(-static_cast<uint64_t>(a)) : a / b;
}
uint64_t quotient(uint64_t a, uint64_t b) { return b == 0 ? 0 : a / b; }

int64_t remainder(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
uint64_t remainder(uint64_t a, uint64_t b) { return b == 0 ? 0 : a % b; }

// The remainder with the sign of b.
int64_t modulo(int64_t a, int64_t b) {
    const int64_t rest = remainder(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
uint64_t modulo(uint64_t a, uint64_t b) { return remainder(a, b); }

// By the width of the type or more, everything is shifted out; a signed number leaves its sign.
int64_t shifted_right(int64_t a, int64_t b, int) { return a >> (b < 0 ? 0 : b > 63 ? 63 : b); }
uint64_t shifted_right(uint64_t a, uint64_t b, int bits) { return b < static_cast<uint64_t>(bits) ? a >> b : 0; }

template <typename C>
C binary_of_integer(int function, C a, C b, int bits) {
    // Unsigned, for these shall wrap.
    const uint64_t x = static_cast<uint64_t>(a), y = static_cast<uint64_t>(b);
    switch (function) {
    case Add: return static_cast<C>(x + y);
    case Sub: return static_cast<C>(x - y);
    case Mul: return static_cast<C>(x * y);
    case Div: return quotient(a, b);
    case Rem: return remainder(a, b);
    case Mod: return modulo(a, b);
    case Max: return a > b ? a : b;
    case Min: return a < b ? a : b;
    case And: return a & b;
    case Or: return a | b;
    case Xor: return a ^ b;
    case Pow: return power(a, b);
    // Negative counts are great ones here.
    case Shl: return y < static_cast<uint64_t>(bits) ? static_cast<C>(x << y) : C{0};
    case Shr: return shifted_right(a, b, bits);
    default: return a;
    }
}

template <typename C>
bool compare(int function, C a, C b) {
    switch (function) {
    case Ge: return a >= b;
    case Gt: return a > b;
    case Le: return a <= b;
    case Lt: return a < b;
    default: return a == b;
    }
}

template <typename C>
bool is_nan(C x) {
    return x != x;
}

// ---- Folds ---------------------------------------------------------------------------------------------------------

template <typename C>
C neutral(int fold, int dtype) {
    if (fold == FoldSum || fold == FoldDot) return C{0};
    if (fold == FoldProduct) return C{1};
    if constexpr (std::is_floating_point_v<C>) {
        const C infinity = std::numeric_limits<C>::infinity();
        return fold == FoldMax ? -infinity : infinity;
    } else {
        const int width = width_of(dtype);
        const bool is_number = dtype >= I64 && dtype != Bool;
        const uint64_t lowest = is_signed(dtype) ? ~mask_of(width - 1) : 0;
        const uint64_t highest = !is_number ? 1 : mask_of(is_signed(dtype) ? width - 1 : width);
        return static_cast<C>(fold == FoldMax ? lowest : highest);
    }
}

template <typename C>
C combine(int fold, C a, C b) {
    switch (fold) {
    // Maximum and minimum of equals are the second.
    case FoldMax: return is_nan(a) || a > b ? a : b;
    case FoldMin: return is_nan(a) || a < b ? a : b;
    default: break;
    }
    const int function = fold == FoldProduct ? Mul : Add;
    if constexpr (std::is_floating_point_v<C>) {
        return binary_of_float(function, a, b);
    } else {
        return binary_of_integer(function, a, b, 64);
    }
}

} // namespace

// ---- Interface -----------------------------------------------------------------------------------------------------

int lane_class(int dtype) { return class_of(dtype); }

int lane_bits(int dtype) { return width_of(dtype); }

unsigned long long lane_load(int dtype, int klass, unsigned long long bits) {
    return in_class(klass, [&](auto c) { return pack(load<decltype(c)>(dtype, bits)); });
}

unsigned long long lane_encode(int klass, unsigned long long number, int dtype) {
    return in_class(klass, [&](auto c) { return encode(unpack<decltype(c)>(number), dtype); });
}

unsigned long long lane_float(int klass, unsigned long long binary64_bits) {
    return lane_load(F64, klass, binary64_bits);
}

unsigned long long lane_integer(int klass, unsigned long long value) { return lane_load(I64, klass, value); }

unsigned long long lane_unary(int klass, int function, unsigned long long x, int truth) {
    return in_class(klass, [&](auto c) {
        using C = decltype(c);
        if constexpr (std::is_floating_point_v<C>) {
            return pack(unary_of_float(function, unpack<C>(x)));
        } else {
            return pack(unary_of_integer(function, unpack<C>(x), truth != 0));
        }
    });
}

unsigned long long lane_binary(int klass, int function, unsigned long long a, unsigned long long b, int bits) {
    return in_class(klass, [&](auto c) {
        using C = decltype(c);
        if constexpr (std::is_floating_point_v<C>) {
            return pack(binary_of_float(function, unpack<C>(a), unpack<C>(b)));
        } else {
            return pack(binary_of_integer(function, unpack<C>(a), unpack<C>(b), bits));
        }
    });
}

int lane_is_comparison(int function) { return function >= Eq && function <= Lt; }

int lane_compare(int klass, int function, unsigned long long a, unsigned long long b) {
    return in_class(klass, [&](auto c) {
        using C = decltype(c);
        return compare(function, unpack<C>(a), unpack<C>(b)) ? 1 : 0;
    });
}

unsigned long long lane_neutral(int klass, int fold, int dtype) {
    return in_class(klass, [&](auto c) { return pack(neutral<decltype(c)>(fold, dtype)); });
}

unsigned long long lane_combine(int klass, int fold, unsigned long long a, unsigned long long b) {
    return in_class(klass, [&](auto c) {
        using C = decltype(c);
        return pack(combine(fold, unpack<C>(a), unpack<C>(b)));
    });
}

int lane_order(int klass, unsigned long long a, unsigned long long b) {
    return in_class(klass, [&](auto c) {
        using C = decltype(c);
        const C x = unpack<C>(a), y = unpack<C>(b);
        if (is_nan(x) || is_nan(y)) return static_cast<int>(is_nan(x)) - static_cast<int>(is_nan(y));
        return static_cast<int>(x > y) - static_cast<int>(x < y);
    });
}

int lane_is_special(int kind, int function) {
    if (kind == KindBinary) return function == Div || function == Mod || function == Rem || function == Pow;
    if (kind != KindUnary) return 0;
    switch (function) {
    case Recip: case Rsqrt: case Sqrt: case Exp: case Log: case Erf: case Tanh: case Sigmoid: case Softplus: case Sin:
    case Cos: case Tan:
        return 1;
    default:
        return 0;
    }
}

unsigned int lane_bf16_round(int dtype, unsigned long long bits) {
    const Format bf16 = format_of(BF16);
    return static_cast<unsigned int>(pack(widened(bf16, narrowed(bf16, load<float>(dtype, bits)))));
}
