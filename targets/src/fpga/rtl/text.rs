//! Verilog as text: values and parts of them, and what is declared.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::fpga::nest::Form;

/// Bits of a value that is an identifier, or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The identifier of a vector.
    name: String,
    /// Its first bit.
    low: u32,
    /// Bits.
    pub bits: u32,
    /// Whether it is in two's complement.
    pub signed: bool,
    /// What it is, if that is known.
    pub known: Option<u64>,
}

impl Piece {
    /// Bits of a vector.
    pub fn of(name: &str, low: u32, form: Form) -> Piece {
        let signed = matches!(form, Form::Integer { signed: true, .. });
        Piece { name: name.to_owned(), low, bits: form.bits(), signed, known: None }
    }

    /// A number.
    pub fn number(value: u64, form: Form) -> Piece {
        let bits = form.bits();
        let mask = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        Piece { known: Some(value & mask), ..Piece::of("", 0, form) }
    }

    /// Bits of it from one on.
    pub fn above(&self, first: u32) -> Piece {
        let known = self.known.map(|value| value.checked_shr(first).unwrap_or(0));
        Piece { low: self.low + first, bits: self.bits - first, known, ..self.clone() }
    }

    /// All of its bits.
    pub fn plain(&self) -> String {
        match self.known {
            Some(value) => format!("{}'h{value:x}", self.bits),
            None => format!("{}[{}:{}]", self.name, self.low + self.bits - 1, self.low),
        }
    }

    /// Its highest bit.
    fn highest(&self) -> String {
        match self.known {
            Some(value) => format!("1'b{}", value >> (self.bits - 1) & 1),
            None => format!("{}[{}]", self.name, self.low + self.bits - 1),
        }
    }

    /// It with so many bits: extended, or without its upper ones.
    pub fn extended(&self, to: u32) -> String {
        if let Some(value) = self.known {
            let negative = self.signed && value >> (self.bits - 1) & 1 == 1;
            let wide = u128::from(value) | if negative { u128::MAX << self.bits } else { 0 };
            let mask = if to >= 128 { u128::MAX } else { (1u128 << to) - 1 };
            return format!("{to}'h{:x}", wide & mask);
        }
        if to <= self.bits {
            return format!("{}[{}:{}]", self.name, self.low + to - 1, self.low);
        }
        let fill = if self.signed { self.highest() } else { "1'b0".to_owned() };
        format!("{{{{{}{{{fill}}}}}, {}}}", to - self.bits, self.plain())
    }

    /// Whether it is not 0.
    pub fn truth(&self) -> String {
        match self.known {
            Some(value) => format!("1'b{}", u8::from(value != 0)),
            None if self.bits == 1 => self.plain(),
            None => format!("(|{})", self.plain()),
        }
    }

    /// The integer that it is, if that is known.
    pub fn integer(&self) -> Option<i64> {
        let shift = 64 - self.bits.min(64);
        self.known.map(|value| if self.signed { (value << shift) as i64 >> shift } else { value as i64 })
    }
}

/// The text of a module: declarations, and what stands behind them.
#[derive(Debug, Default)]
pub struct Text {
    declared: String,
    body: String,
    /// Values that are wanted later: bits, and how many cycles later at most.
    delayed: BTreeMap<String, (u32, u32)>,
}

impl Text {
    /// Declares a vector of so many bits.
    pub fn vector(&mut self, name: &str, bits: u32) {
        let _ = writeln!(self.declared, "  logic [{}:0] {name};", bits.max(1) - 1);
    }

    /// Adds a line.
    pub fn line(&mut self, text: &str) {
        let _ = writeln!(self.body, "  {text}");
    }

    /// Declares a vector that is always a value.
    pub fn wire(&mut self, name: &str, bits: u32, value: &str) {
        self.vector(name, bits);
        self.line(&format!("assign {name} = {value};"));
    }

    /// Declares a vector that becomes a value at the end of each cycle in which a condition holds.
    pub fn register(&mut self, name: &str, bits: u32, when: Option<&str>, value: &str) {
        self.vector(name, bits);
        let when = when.map_or(String::new(), |when| format!("if ({when}) "));
        self.line(&format!("always_ff @(posedge clk) {when}{name} <= {value};"));
    }

    /// Declares a bit that becomes a value at the end of each cycle, and is 0 after a reset.
    pub fn flag(&mut self, name: &str, value: &str) {
        self.vector(name, 1);
        self.line(&format!("always_ff @(posedge clk) {name} <= !reset && ({value});"));
    }

    /// The name of a vector's value so many cycles later.
    pub fn later(&mut self, name: &str, bits: u32, cycles: u32) -> String {
        if cycles == 0 {
            return name.to_owned();
        }
        let most = self.delayed.entry(name.to_owned()).or_insert((bits, 0));
        most.1 = most.1.max(cycles);
        format!("{name}_d{cycles}")
    }

    /// All of it.
    pub fn finish(mut self) -> String {
        for (name, (bits, cycles)) in std::mem::take(&mut self.delayed) {
            let mut before = name.clone();
            for cycle in 1..=cycles {
                let own = format!("{name}_d{cycle}");
                self.register(&own, bits, None, &before);
                before = own;
            }
        }
        format!("{}\n{}", self.declared, self.body)
    }
}
