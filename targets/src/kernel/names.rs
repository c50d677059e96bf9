//! Names in emitted code: identifiers that mean nothing else in any language.

/// Words that OpenCL C, CUDA C++ or C++ for high-level synthesis has a meaning for, and those that emitted code uses itself, in
/// order.
const TAKEN: &str = "\
    abs alignas alignof and and_eq ap_int ap_uint as_float as_uint asm atomic atomicInc atomic_inc auto barrier \
    bf16_of_float bitand bitor bits_of_float block blockDim blockIdx block_x block_y block_z bool break case catch \
    ceil char char16_t char32_t char8_t clamp class co_await co_return co_yield compl complex concept const \
    const_cast constant consteval constexpr constinit continue convert cos counter cp_async cp_async_commit \
    cp_async_wait decltype default delete device dim3 distance div_signed div_unsigned do double dynamic_cast \
    e4m3_of_float e5m2_of_float else enum erf event_t exp explicit export extern fabs false float float_of_bf16 \
    float_of_bits float_of_e4m3 float_of_e5m2 float_of_half floor floor_mod_f32 floor_mod_f64 fma fmax fmin fmod for \
    friend gathered generic get_element get_group_id get_local_id global goto gridDim half half2 half_of_float i386 \
    if ilogb image inline int int16_t int8_t isfinite isinf isnan kernel kernels ldexp ldmatrix ldmatrix_x4 \
    ldmatrix_x4_trans length linux load_i4 load_u4 load_words local log log1p long main make_uint2 make_uint4 mask \
    max max_f32 max_f64 mem_fence min min_f32 min_f64 mix mma_m16n8k16_bf16 mma_m16n8k16_f16 mma_m16n8k32_s8_s8 \
    mma_m16n8k32_s8_u8 mma_m16n8k32_u8_s8 mma_m16n8k32_u8_u8 mma_m16n8k8_tf32 mod_signed mutable namespace new \
    noexcept normalize not not_eq nullptr operator or or_eq other own_column own_k own_lane own_left own_right \
    own_row own_words pipe pow pow_signed pow_unsigned private protected ptrdiff_t public put_element quad read_only \
    read_write register reinterpret_cast rem_signed rem_unsigned remainder reqd_work_group_size requires restrict \
    return rint round round_to_half round_to_tf32 rsqrt sampler_t saturated_int saturated_long saturated_unsigned \
    saturated_unsigned_long select shared_address shared_memory shift_left_signed shift_left_unsigned \
    shift_right_signed shift_right_unsigned short sign sign_f32 sign_f64 signbit signed sin size_t sizeof slot sqrt \
    static static_assert static_cast std step store_words struct switch tan tanh template this thread threadIdx \
    thread_local throw true try typedef typeid typename typeof uchar uint uint1 uint16_t uint2 uint4 uint8_t ulong \
    uniform union unix unsigned ushort using vec_step virtual vload_half void volatile vstore_half_rte warp warpSize \
    wchar_t while write_only xor xor_eq";

/// How macros and conversions of OpenCL C begin.
const TAKEN_PREFIXES: [&str; 2] = ["cl_", "convert_"];

/// Most characters of a name that is made.
const LENGTH: usize = 48;

/// Whether a text is an identifier that emitted code may use.
pub fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic());
    first
        && text.len() <= 2 * LENGTH
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !text.contains("__")
        && TAKEN.split(' ').all(|word| word != text)
        && !TAKEN_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

/// A name that is like a text, whatever is in it: of a path what is behind, if that says enough.
pub fn name_of(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => name.push(c.to_ascii_lowercase()),
            _ if name.ends_with('_') || name.is_empty() => {}
            _ => name.push('_'),
        }
    }
    let trimmed = name.trim_end_matches('_');
    // The end of a path is what tells it from others.
    let start = trimmed.len().saturating_sub(LENGTH - 4);
    let end = trimmed[start..].trim_start_matches('_');
    let plain = match end.chars().next() {
        Some(c) if c.is_ascii_alphabetic() => end.to_owned(),
        _ => format!("v_{end}"),
    };
    let plain = plain.trim_end_matches('_').to_owned();
    let candidates = [plain.clone(), format!("{plain}_v"), format!("v_{plain}")];
    candidates.into_iter().find(|name| is_name(name)).unwrap_or_else(|| "v".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_in_order() {
        assert!(TAKEN.split(' ').is_sorted());
    }

    #[test]
    fn every_text_has_a_name() {
        let texts = [
            "",
            "x",
            "/layer.0/attention/MatMul_output_0",
            "0",
            "float",
            "restrict",
            "cl_khr_fp64",
            "convert_",
            "a\"; }",
            "__a__b",
            "ümläut",
            "_",
        ];
        for text in texts {
            assert!(is_name(&name_of(text)), "{text:?} becomes {:?}", name_of(text));
        }
        assert_eq!(name_of("/layer.0/MatMul_output_0"), "layer_0_matmul_output_0");
        assert_eq!(name_of("float"), "float_v");
    }
}
