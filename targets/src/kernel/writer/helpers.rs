//! Functions that emitted code calls where the language has none of its own. Only those that are called are written.

use super::language::Language;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Helper {
    ToF16,
    FromF16,
    RoundF16,
    RoundTf32,
    FromBf16,
    ToBf16,
    FromF8E4M3,
    ToF8E4M3,
    FromF8E5M2,
    ToF8E5M2,
    LoadI4,
    LoadU4,
    MaxF32,
    MinF32,
    MaxF64,
    MinF64,
    SignF32,
    SignF64,
    FloorModF32,
    FloorModF64,
    DivSigned,
    DivUnsigned,
    RemSigned,
    RemUnsigned,
    ModSigned,
    PowUnsigned,
    PowSigned,
    Clamp,
    ShlSigned,
    ShlUnsigned,
    ShrSigned,
    ShrUnsigned,
    ToI32,
    ToU32,
    ToI64,
    ToU64,
}

impl Helper {
    /// Its name in the code.
    pub fn name(self) -> &'static str {
        match self {
            Helper::ToF16 => "half_of_float",
            Helper::FromF16 => "float_of_half",
            Helper::RoundF16 => "round_to_half",
            Helper::RoundTf32 => "round_to_tf32",
            Helper::FromBf16 => "float_of_bf16",
            Helper::ToBf16 => "bf16_of_float",
            Helper::FromF8E4M3 => "float_of_e4m3",
            Helper::ToF8E4M3 => "e4m3_of_float",
            Helper::FromF8E5M2 => "float_of_e5m2",
            Helper::ToF8E5M2 => "e5m2_of_float",
            Helper::LoadI4 => "load_i4",
            Helper::LoadU4 => "load_u4",
            Helper::MaxF32 => "max_f32",
            Helper::MinF32 => "min_f32",
            Helper::MaxF64 => "max_f64",
            Helper::MinF64 => "min_f64",
            Helper::SignF32 => "sign_f32",
            Helper::SignF64 => "sign_f64",
            Helper::FloorModF32 => "floor_mod_f32",
            Helper::FloorModF64 => "floor_mod_f64",
            Helper::DivSigned => "div_signed",
            Helper::DivUnsigned => "div_unsigned",
            Helper::RemSigned => "rem_signed",
            Helper::RemUnsigned => "rem_unsigned",
            Helper::ModSigned => "mod_signed",
            Helper::PowSigned => "pow_signed",
            Helper::PowUnsigned => "pow_unsigned",
            Helper::ShlSigned => "shift_left_signed",
            Helper::ShlUnsigned => "shift_left_unsigned",
            Helper::ShrSigned => "shift_right_signed",
            Helper::ShrUnsigned => "shift_right_unsigned",
            Helper::Clamp => "clamp",
            Helper::ToI32 => "saturated_int",
            Helper::ToU32 => "saturated_unsigned",
            Helper::ToI64 => "saturated_long",
            Helper::ToU64 => "saturated_unsigned_long",
        }
    }

    /// Whether the language has it.
    pub fn is_known(self, language: Language) -> bool {
        match language {
            Language::OpenCl => {
                matches!(self, Helper::Clamp | Helper::ToI32 | Helper::ToU32 | Helper::ToI64 | Helper::ToU64)
            }
            Language::Cuda | Language::Hls => false,
        }
    }

    /// Functions that it calls.
    pub fn needs(self, language: Language) -> &'static [Helper] {
        match self {
            Helper::RoundF16 if language == Language::Hls => &[Helper::ToF16, Helper::FromF16],
            Helper::ModSigned => &[Helper::RemSigned],
            Helper::PowSigned => &[Helper::PowUnsigned],
            Helper::ShrSigned => &[Helper::Clamp],
            _ => &[],
        }
    }

    /// Its definition.
    pub fn text(self, language: Language) -> String {
        let own = match language {
            Language::OpenCl => None,
            Language::Cuda => self.of_cuda(),
            Language::Hls => self.of_hls(),
        };
        own.map_or_else(|| language.translated(self.of_opencl()), str::to_owned)
    }

    /// Its definition in CUDA C++, where that is not the other's word by word.
    fn of_cuda(self) -> Option<&'static str> {
        Some(match self {
            Helper::RoundF16 => {
                "__device__ inline float round_to_half(float x)
{
    return __half2float(__float2half_rn(x));
}
"
            }
            Helper::FromBf16 => {
                "__device__ inline float float_of_bf16(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
"
            }
            Helper::ToBf16 => {
                "__device__ inline __nv_bfloat16 bf16_of_float(float x)
{
    return isnan(x) ? __ushort_as_bfloat16(0x7fc0) : __float2bfloat16_rn(x);
}
"
            }
            Helper::Clamp => {
                "template <typename Integer> __device__ inline Integer clamp(Integer x, Integer least, Integer most)
{
    return min(max(x, least), most);
}
"
            }
            // The conversions saturate, but what they make of NaN is not always 0.
            Helper::ToI32 => {
                "__device__ inline int saturated_int(float x) { return isnan(x) ? 0 : __float2int_rz(x); }
__device__ inline int saturated_int(double x) { return isnan(x) ? 0 : __double2int_rz(x); }
"
            }
            Helper::ToU32 => {
                "__device__ inline unsigned saturated_unsigned(float x) { return isnan(x) ? 0 : __float2uint_rz(x); }
__device__ inline unsigned saturated_unsigned(double x) { return isnan(x) ? 0 : __double2uint_rz(x); }
"
            }
            Helper::ToI64 => {
                "__device__ inline long long saturated_long(float x) { return isnan(x) ? 0 : __float2ll_rz(x); }
__device__ inline long long saturated_long(double x) { return isnan(x) ? 0 : __double2ll_rz(x); }
"
            }
            Helper::ToU64 => {
                "__device__ inline unsigned long long saturated_unsigned_long(float x)
{
    return isnan(x) ? 0 : __float2ull_rz(x);
}
__device__ inline unsigned long long saturated_unsigned_long(double x)
{
    return isnan(x) ? 0 : __double2ull_rz(x);
}
"
            }
            _ => return None,
        })
    }

    /// Its definition for high-level synthesis, where that is not OpenCL's word by word.
    fn of_hls(self) -> Option<&'static str> {
        Some(match self {
            Helper::RoundF16 => {
                "inline float round_to_half(float x)
{
    return float_of_half(half_of_float(x));
}
"
            }
            // Ties go to even; what is too large becomes infinite.
            Helper::ToF16 => {
                "inline uint16_t half_of_float(float x)
{
    const unsigned bits = bits_of_float(x), size = bits & 0x7fffffff;
    const uint16_t minus = bits >> 16 & 0x8000;
    if (size > 0x7f800000) return 0x7e00;
    if (size >= 0x47800000) return minus | 0x7c00;
    if (size < 0x33000000) return minus;
    if (size >= 0x38800000) return minus | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
    // Below 2 to the power of -14 there are steps of 2 to the power of -24.
    const unsigned mantissa = (size & 0x7fffff) | 0x800000, shift = 126 - (size >> 23);
    const unsigned kept = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
    return minus | (kept + (rest > half || (rest == half && (kept & 1))));
}
"
            }
            Helper::FromF16 => {
                "inline float float_of_half(uint16_t bits)
{
    const unsigned minus = (unsigned)(bits & 0x8000) << 16, size = bits & 0x7fff;
    if (size >= 0x7c00) return float_of_bits(minus | 0x7f800000 | (size & 0x3ff) << 13);
    if (size >= 0x400) return float_of_bits(minus | (size + 0x1c000) << 13);
    const float steps = (float)size * 0x1p-24f;
    return minus ? -steps : steps;
}
"
            }
            Helper::Clamp => {
                "template <typename Integer> inline Integer clamp(Integer x, Integer least, Integer most)
{
    return x < least ? least : x > most ? most : x;
}
"
            }
            Helper::ToI32 => {
                "template <typename Float> inline int saturated_int(Float x)
{
    if (std::isnan(x)) return 0;
    if (x >= (Float)0x1p31) return 2147483647;
    return x <= (Float)-0x1p31 ? -2147483647 - 1 : (int)x;
}
"
            }
            Helper::ToU32 => {
                "template <typename Float> inline unsigned saturated_unsigned(Float x)
{
    if (std::isnan(x) || x <= 0) return 0;
    return x >= (Float)0x1p32 ? 0xffffffffu : (unsigned)x;
}
"
            }
            Helper::ToI64 => {
                "template <typename Float> inline long long saturated_long(Float x)
{
    if (std::isnan(x)) return 0;
    if (x >= (Float)0x1p63) return 9223372036854775807LL;
    return x <= (Float)-0x1p63 ? -9223372036854775807LL - 1 : (long long)x;
}
"
            }
            Helper::ToU64 => {
                "template <typename Float> inline unsigned long long saturated_unsigned_long(Float x)
{
    if (std::isnan(x) || x <= 0) return 0;
    return x >= (Float)0x1p64 ? 0xffffffffffffffffULL : (unsigned long long)x;
}
"
            }
            _ => return None,
        })
    }

    /// Its definition in OpenCL C.
    fn of_opencl(self) -> &'static str {
        match self {
            // What OpenCL C has, or has other words for.
            Helper::Clamp | Helper::ToI32 | Helper::ToU32 | Helper::ToI64 | Helper::ToU64 => "",
            Helper::ToF16 | Helper::FromF16 => "",
            Helper::RoundF16 => {
                "inline float round_to_half(float x)
{
    ushort bits;
    vstore_half_rte(x, 0, (half *)&bits);
    return vload_half(0, (const half *)&bits);
}
"
            }
            // As matrix units take binary32: with 10 bits of mantissa, ties away from zero.
            Helper::RoundTf32 => {
                "inline float round_to_tf32(float x)
{
    return isfinite(x) ? as_float((as_uint(x) + 0x1000) & ~0x1fffu) : x;
}
"
            }
            Helper::FromBf16 => {
                "inline float float_of_bf16(ushort bits)
{
    return as_float((uint)bits << 16);
}
"
            }
            Helper::ToBf16 => {
                "inline ushort bf16_of_float(float x)
{
    const uint bits = as_uint(x);
    return isnan(x) ? 0x7fc0 : (ushort)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
"
            }
            // Without infinities; 0x7f is not a number.
            Helper::FromF8E4M3 => {
                "inline float float_of_e4m3(uchar bits)
{
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    const float size = exponent == 15 && mantissa == 7 ? NAN
                     : exponent == 0                   ? ldexp((float)mantissa, -9)
                                                       : ldexp((float)(8 + mantissa), exponent - 10);
    return bits & 128 ? -size : size;
}
"
            }
            // What is too large becomes the largest number that there is.
            Helper::ToF8E4M3 => {
                "inline uchar e4m3_of_float(float x)
{
    const uchar minus = signbit(x) ? 128 : 0;
    const float size = fabs(x);
    if (isnan(x)) return 127;
    if (size >= 464.0f) return minus | 126;
    const int exponent = max(size > 0 ? ilogb(size) : -6, -6);
    const int steps = (int)rint(ldexp(size, 3 - exponent));
    return minus | (uchar)(steps + (exponent + 6) * 8);
}
"
            }
            Helper::FromF8E5M2 => {
                "inline float float_of_e5m2(uchar bits)
{
    const int exponent = bits >> 2 & 31, mantissa = bits & 3;
    const float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                     : exponent == 0 ? ldexp((float)mantissa, -16)
                                     : ldexp((float)(4 + mantissa), exponent - 17);
    return bits & 128 ? -size : size;
}
"
            }
            Helper::ToF8E5M2 => {
                "inline uchar e5m2_of_float(float x)
{
    const uchar minus = signbit(x) ? 128 : 0;
    const float size = fabs(x);
    if (isnan(x)) return 126;
    if (size >= 61440.0f) return minus | 123;
    const int exponent = max(size > 0 ? ilogb(size) : -14, -14);
    const int steps = (int)rint(ldexp(size, 2 - exponent));
    return minus | (uchar)(steps + (exponent + 14) * 4);
}
"
            }
            Helper::LoadI4 => {
                "inline int load_i4(const __global uchar *elements, int at)
{
    return (int)((uint)(elements[at / 2] >> at % 2 * 4) << 28) >> 28;
}
"
            }
            Helper::LoadU4 => {
                "inline int load_u4(const __global uchar *elements, int at)
{
    return elements[at / 2] >> at % 2 * 4 & 15;
}
"
            }
            Helper::MaxF32 => {
                "inline float max_f32(float a, float b)
{
    return isnan(a) || a >= b ? a : b;
}
"
            }
            Helper::MinF32 => {
                "inline float min_f32(float a, float b)
{
    return isnan(a) || a <= b ? a : b;
}
"
            }
            Helper::MaxF64 => {
                "inline double max_f64(double a, double b)
{
    return isnan(a) || a >= b ? a : b;
}
"
            }
            Helper::MinF64 => {
                "inline double min_f64(double a, double b)
{
    return isnan(a) || a <= b ? a : b;
}
"
            }
            Helper::SignF32 => {
                "inline float sign_f32(float x)
{
    return x > 0 ? 1.0f : x < 0 ? -1.0f : x;
}
"
            }
            Helper::SignF64 => {
                "inline double sign_f64(double x)
{
    return x > 0 ? 1.0 : x < 0 ? -1.0 : x;
}
"
            }
            Helper::FloorModF32 => {
                "inline float floor_mod_f32(float a, float b)
{
    const float rest = fmod(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
"
            }
            Helper::FloorModF64 => {
                "inline double floor_mod_f64(double a, double b)
{
    const double rest = fmod(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
"
            }
            // By zero nothing is right, but nothing may stop either; by -1 the least number wraps.
            Helper::DivSigned => {
                "inline long div_signed(long a, long b)
{
    return b == 0 ? 0 : b == -1 ? (long)(0 - (ulong)a) : a / b;
}
"
            }
            Helper::DivUnsigned => {
                "inline ulong div_unsigned(ulong a, ulong b)
{
    return b == 0 ? 0 : a / b;
}
"
            }
            Helper::RemSigned => {
                "inline long rem_signed(long a, long b)
{
    return b == 0 || b == -1 ? 0 : a % b;
}
"
            }
            Helper::RemUnsigned => {
                "inline ulong rem_unsigned(ulong a, ulong b)
{
    return b == 0 ? 0 : a % b;
}
"
            }
            Helper::ModSigned => {
                "inline long mod_signed(long a, long b)
{
    const long rest = rem_signed(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
"
            }
            Helper::PowSigned => {
                "inline long pow_signed(long base, long exponent)
{
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 ? -1 : 1) : 0;
    return (long)pow_unsigned((ulong)base, (ulong)exponent);
}
"
            }
            Helper::PowUnsigned => {
                "inline ulong pow_unsigned(ulong base, ulong exponent)
{
    ulong result = 1;
    for (uint rest = (uint)min(exponent, 0xffffffffUL); rest; rest >>= 1, base *= base)
        if (rest & 1) result *= base;
    return result;
}
"
            }
            Helper::ShlSigned => {
                "inline long shift_left_signed(long a, long by, int width)
{
    return by >= 0 && by < width ? (long)((ulong)a << by) : 0;
}
"
            }
            Helper::ShlUnsigned => {
                "inline ulong shift_left_unsigned(ulong a, ulong by, int width)
{
    return by < (ulong)width ? a << by : 0;
}
"
            }
            Helper::ShrSigned => {
                "inline long shift_right_signed(long a, long by)
{
    return a >> clamp(by, 0L, 63L);
}
"
            }
            Helper::ShrUnsigned => {
                "inline ulong shift_right_unsigned(ulong a, ulong by)
{
    return by < 64 ? a >> by : 0;
}
"
            }
        }
    }
}
