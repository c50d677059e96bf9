//! Integers as text, for texts of millions of lines: the formatting of the standard library takes several times as long.

/// Appends a number.
pub(crate) fn decimal(out: &mut String, value: u64) {
    digits::<10>(out, value);
}

/// Appends a number with a sign.
pub(crate) fn integer(out: &mut String, value: i64) {
    out.push_str(if value < 0 { "-" } else { "" });
    decimal(out, value.unsigned_abs());
}

/// Appends the hexadecimal digits of a number.
pub(crate) fn hexadecimal(out: &mut String, value: u64) {
    digits::<16>(out, value);
}

fn digits<const BASE: u64>(out: &mut String, mut value: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b"0123456789abcdef"[(value % BASE) as usize];
        value /= BASE;
        if value == 0 {
            break;
        }
    }
    // Digits are always text.
    out.push_str(std::str::from_utf8(&digits[first..]).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_the_standard_library_writes_them() {
        for value in [0, 9, 10, 4_711, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let (mut own, mut hex, mut signed) = (String::new(), String::new(), String::new());
            decimal(&mut own, value);
            hexadecimal(&mut hex, value);
            integer(&mut signed, value as i64);
            assert_eq!([own, hex, signed], [format!("{value}"), format!("{value:x}"), format!("{}", value as i64)]);
        }
    }
}
