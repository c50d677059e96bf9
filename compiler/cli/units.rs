//! Numbers as people read them.

/// An integer with its thousands apart.
pub fn integer(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes, in binary units from a kibibyte on.
pub fn bytes(value: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    scaled(value as f64, 1024.0, &units)
}

/// A count, in decimal units from a thousand on.
pub fn count(value: u64) -> String {
    scaled(value as f64, 1000.0, &["", "K", "M", "G", "T", "P", "E"])
}

/// A frequency.
pub fn hertz(value: u64) -> String {
    scaled(value as f64, 1000.0, &["Hz", "kHz", "MHz", "GHz", "THz", "PHz", "EHz"])
}

/// A duration.
pub fn seconds(value: f64) -> String {
    let (scale, unit) = match value {
        v if v >= 1.0 => (1.0, "s"),
        v if v >= 1e-3 => (1e3, "ms"),
        v if v >= 1e-6 => (1e6, "us"),
        _ => (1e9, "ns"),
    };
    format!("{} {unit}", significant(value * scale))
}

/// An energy.
pub fn joules(value: f64) -> String {
    let (scale, unit) = match value {
        v if v >= 1.0 => (1.0, "J"),
        v if v >= 1e-3 => (1e3, "mJ"),
        v if v >= 1e-6 => (1e6, "uJ"),
        _ => (1e9, "nJ"),
    };
    format!("{} {unit}", significant(value * scale))
}

/// A power.
pub fn watts(value: f64) -> String {
    format!("{} W", significant(value))
}

/// A share of one.
pub fn percent(value: f64) -> String {
    format!("{:.1} %", value * 100.0)
}

/// A number of any size, with four digits that mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !size.is_finite() => value.to_string(),
        size if (1e-3..1e5).contains(&size) => {
            let decimals = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
            format!("{value:.decimals$}")
        }
        _ => format!("{value:.3e}"),
    }
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut index = 0;
    while value >= step && index + 1 < units.len() {
        value /= step;
        index += 1;
    }
    let number = if index == 0 { format!("{value:.0}") } else { significant(value) };
    format!("{number} {}", units.get(index).copied().unwrap_or_default()).trim_end().to_owned()
}

/// Four digits, without zeros at the end of a fraction.
fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(integer(1_234_567), "1,234,567");
        assert_eq!(integer(12), "12");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(16 << 20), "16 MiB");
        assert_eq!(count(1_234_567), "1.235 M");
        assert_eq!(hertz(1_000_000_000), "1 GHz");
        assert_eq!(seconds(0.000_123_456), "123.5 us");
        assert_eq!(seconds(0.0), "0 ns");
        assert_eq!(joules(0.012_345), "12.35 mJ");
        assert_eq!(joules(0.0), "0 nJ");
        assert_eq!(watts(61.23), "61.23 W");
        assert_eq!(number(-0.012_345), "-0.01235");
        assert_eq!(number(1.5e-9), "1.500e-9");
        assert_eq!(number(0.0), "0");
    }
}
