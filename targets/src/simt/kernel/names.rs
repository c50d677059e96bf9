//! Names in emitted code: identifiers that mean nothing else in either language.

/// Words that OpenCL C or CUDA C++ has a meaning for, and those that emitted code uses itself, in order.
const TAKEN: &[&str] = &[
    "abs", "alignas", "alignof", "and", "asm", "atomic", "auto", "barrier", "bitand", "bitor", "block", "block_x", "block_y",
    "block_z", "bool", "break", "case", "catch", "ceil", "char", "char16_t", "char32_t", "class", "clamp", "compl", "complex",
    "const", "constant", "constexpr", "continue", "convert", "cos", "decltype", "default", "delete", "distance", "do",
    "double", "else", "enum", "erf", "exp", "explicit", "export", "extern", "fabs", "false", "float", "floor", "fma",
    "fmax", "fmin", "fmod", "for", "friend", "generic", "global", "goto", "half", "if", "image", "inline", "int", "isinf",
    "isnan", "kernel", "length", "local", "log", "log1p", "long", "main", "mask", "max", "min", "mix", "mutable",
    "namespace", "new", "noexcept", "normalize", "not", "nullptr", "operator", "or", "other", "pipe", "pow", "private",
    "protected", "ptrdiff_t", "public", "quad", "read_only", "read_write", "register", "remainder", "return", "rint",
    "round", "rsqrt", "sampler_t", "select", "short", "sign", "signed", "sin", "size_t", "sizeof", "sqrt", "static", "step",
    "struct", "switch", "tan", "tanh", "template", "this", "thread", "throw", "true", "try", "typedef", "typeid",
    "typename", "uchar", "uint", "uint8_t", "ulong", "union", "uniform", "unsigned", "ushort", "using", "vec_step",
    "virtual", "void", "volatile", "warp", "while", "write_only", "xor",
];

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
        && TAKEN.binary_search(&text).is_err()
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
    if is_name(&plain) { plain } else { format!("{plain}_v") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_in_order() {
        assert!(TAKEN.is_sorted());
    }

    #[test]
    fn every_text_has_a_name() {
        let texts = ["", "x", "/layer.0/attention/MatMul_output_0", "0", "float", "a\"; }", "__a__b", "ümläut", "_"];
        for text in texts {
            assert!(is_name(&name_of(text)), "{text:?} becomes {:?}", name_of(text));
        }
        assert_eq!(name_of("/layer.0/MatMul_output_0"), "layer_0_matmul_output_0");
        assert_eq!(name_of("float"), "float_v");
    }
}
