//! The tables of the exponential function's operator.

use std::fmt::Write as _;

/// `exp_tables.svh`: e^(i / 512) with 34 bits behind the binary point, and (j / 64 + 1 / 128)^3 / 6 of 2^-27 with 34: the third term
/// of the series of e^z, for the upper six bits of z below 2^-9.
pub fn exponential() -> String {
    let mut text = "  initial begin\n".to_owned();
    for index in 0..512 {
        let power = libm::exp(f64::from(index) / 512.0) * 2f64.powi(34);
        let _ = writeln!(text, "    powers[{index}] = 36'd{};", libm::round(power) as u64);
    }
    for index in 0..64 {
        let middle = f64::from(index) / 64.0 + 1.0 / 128.0;
        let cube = middle * middle * middle / 6.0 * 128.0;
        let _ = writeln!(text, "    cubes[{index}] = 5'd{};", libm::round(cube) as u64);
    }
    text + "  end\n"
}
