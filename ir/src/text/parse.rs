//! Text to graphs: a recursive-descent parser for text from anywhere.

use std::collections::HashMap;
use std::fmt::Display;

use serde::Deserialize;
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::literal::{float_bits, pack, parse_element};
use crate::ops::Op;
use crate::{DType, Data, Graph, Shape, Tensor, TensorType, ValueId};

/// Most bytes that the `splat` and `seeded` constants of one text may take: 1 GiB. Without a bound, a line of text
/// could ask for all memory.
const GENERATED_BYTES: usize = 1 << 30;

/// Where a text stops being a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: expected {expected}, found {found}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What would be right there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// Reads a graph from its textual form. Result types must be those that the operators infer.
///
/// `seeded N` draws elements from SplitMix64 started at N. A float is the sum of the number's four 16-bit parts, shifted
/// and scaled to mean 0 and variance 1 (so it lies within ±2√3), and rounded. An integer is uniform in -8..=7 if signed
/// and in 0..=15 otherwise. A truth value is the number's lowest bit.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut parser =
        Parser { text, at: 0, graph: Graph::new(""), values: HashMap::new(), generated_bytes: GENERATED_BYTES };
    match parser.graph() {
        Ok(()) => Ok(parser.graph),
        Err(Fault { at, expected, found }) => {
            let before = &text[..at];
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            Err(ParseError {
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                expected,
                found: found.unwrap_or_else(|| describe(&text[at..])),
            })
        }
    }
}

/// The next few characters of a text, for a message.
fn describe(rest: &str) -> String {
    let Some(first) = rest.chars().next() else { return "the end of the text".to_owned() };
    let word: String = rest.chars().take_while(|&c| is_word(c) && c != ':').take(40).collect();
    format!("`{}`", if word.is_empty() { first.escape_debug().to_string() } else { word })
}

/// Whether a number, a keyword or a value's name may have this character.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-' | ':' | '%')
}

/// An error at a byte of the text. `found` is only there if it is not simply what the text says.
struct Fault {
    at: usize,
    expected: String,
    found: Option<String>,
}

type Parsed<T> = Result<T, Fault>;

struct Parser<'a> {
    text: &'a str,
    at: usize,
    graph: Graph,
    values: HashMap<u64, ValueId>,
    generated_bytes: usize,
}

/// What stands before the `=` for each result: number, name and type, with their positions.
struct Declaration {
    number: u64,
    number_at: usize,
    name: Option<String>,
    ty: TensorType,
    ty_at: usize,
}

impl<'a> Parser<'a> {
    fn fault<T>(&self, expected: impl Display) -> Parsed<T> {
        Err(Fault { at: self.at, expected: expected.to_string(), found: None })
    }

    fn fault_at<T>(&self, at: usize, expected: impl Display, found: impl Display) -> Parsed<T> {
        Err(Fault { at, expected: expected.to_string(), found: Some(found.to_string()) })
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        loop {
            self.at = self.text.len() - self.rest().trim_start().len();
            if !(self.rest().starts_with("//") || self.rest().starts_with(';')) {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// Takes `token` if it comes next.
    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.take(token) { Ok(()) } else { self.fault(format_args!("`{token}`")) }
    }

    /// Takes a run of characters that `accept` allows; empty if there is none.
    fn run(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        self.skip_space();
        let rest = self.rest();
        let run = &rest[..rest.find(|c| !accept(c)).unwrap_or(rest.len())];
        self.at += run.len();
        run
    }

    /// Takes a name of the language: a keyword, an operator, an attribute, an element type.
    fn word(&mut self) -> &'a str {
        self.run(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    /// Takes one JSON value.
    fn json<T: for<'de> Deserialize<'de>>(&mut self, expected: &str) -> Parsed<T> {
        self.skip_space();
        let mut stream = serde_json::Deserializer::from_str(self.rest()).into_iter();
        match stream.next() {
            Some(Ok(value)) => {
                self.at += stream.byte_offset();
                Ok(value)
            }
            _ => self.fault(expected),
        }
    }

    fn string(&mut self) -> Parsed<String> {
        self.json("a string in double quotes")
    }

    /// Takes a string if one comes next.
    fn name(&mut self) -> Parsed<Option<String>> {
        self.skip_space();
        if self.rest().starts_with('"') { self.string().map(Some) } else { Ok(None) }
    }

    fn number<T: std::str::FromStr>(&mut self, expected: &str) -> Parsed<T> {
        self.skip_space();
        let at = self.at;
        let digits = self.run(|c| c.is_ascii_digit());
        digits.parse().or_else(|_| {
            self.at = at;
            self.fault(expected)
        })
    }

    fn value_number(&mut self) -> Parsed<u64> {
        self.expect("%").or_else(|_| self.fault("a value such as `%0`"))?;
        self.number("the value's number")
    }

    /// Takes the use of a value that is defined above.
    fn value(&mut self) -> Parsed<ValueId> {
        self.skip_space();
        let at = self.at;
        let number = self.value_number()?;
        match self.values.get(&number) {
            Some(&id) => Ok(id),
            None => self.fault_at(at, "a value that is defined above", format_args!("%{number}")),
        }
    }

    fn ty(&mut self) -> Parsed<TensorType> {
        self.skip_space();
        let at = self.at;
        let Ok(dtype) = self.word().parse::<DType>() else {
            self.at = at;
            return self.fault("an element type such as `f32`");
        };
        self.expect("[")?;
        let mut dims = Vec::new();
        while !self.take("]") {
            if !dims.is_empty() {
                self.expect(",").or_else(|_| self.fault("`,` or `]`"))?;
            }
            dims.push(self.number("an extent or `]`")?);
        }
        match Shape::new(dims) {
            Ok(shape) => Ok(TensorType::new(dtype, shape)),
            Err(error) => self.fault_at(at, "a type of at most 2^40 elements", error),
        }
    }

    /// Takes number, name and type of a value that is defined here.
    fn declaration(&mut self) -> Parsed<Declaration> {
        self.skip_space();
        let number_at = self.at;
        let number = self.value_number()?;
        let name = self.name()?;
        self.expect(":")?;
        self.skip_space();
        let ty_at = self.at;
        Ok(Declaration { number, number_at, name, ty: self.ty()?, ty_at })
    }

    fn define(&mut self, declaration: &Declaration, id: ValueId) -> Parsed<()> {
        match self.values.insert(declaration.number, id) {
            None => Ok(()),
            Some(_) => {
                let found = format!("%{}, which is defined above", declaration.number);
                self.fault_at(declaration.number_at, "a value that is not yet defined", found)
            }
        }
    }

    fn graph(&mut self) -> Parsed<()> {
        self.expect("graph")?;
        self.graph = Graph::new(self.string()?);
        self.expect("{")?;
        while !self.take("}") {
            let at = self.at;
            if self.rest().starts_with('%') {
                self.node()?;
                continue;
            }
            match self.word() {
                "input" => {
                    let declaration = self.declaration()?;
                    let name = declaration.name.as_deref().unwrap_or_default();
                    let id = self.graph.add_input(name, declaration.ty.clone());
                    self.define(&declaration, id)?;
                }
                "const" => self.constant()?,
                "output" => {
                    let name = self.string()?;
                    self.expect("=")?;
                    let id = self.value()?;
                    self.graph.add_output(name, id);
                }
                _ => {
                    self.at = at;
                    return self.fault("`input`, `const`, `output`, a value such as `%0`, or `}`");
                }
            }
        }
        self.skip_space();
        if self.rest().is_empty() { Ok(()) } else { self.fault("the end of the text") }
    }

    fn node(&mut self) -> Parsed<()> {
        let mut results: SmallVec<[Declaration; 1]> = SmallVec::new();
        loop {
            results.push(self.declaration()?);
            if !self.take(",") {
                break;
            }
        }
        self.expect("=")?;
        self.skip_space();
        let op_at = self.at;
        let op = self.op()?;
        self.expect("(")?;
        let mut operands: SmallVec<[ValueId; 3]> = SmallVec::new();
        while !self.take(")") {
            if !operands.is_empty() {
                self.expect(",").or_else(|_| self.fault("`,` or `)`"))?;
            }
            operands.push(self.value()?);
        }
        let origin = if self.take("from") { self.string()? } else { String::new() };
        self.graph.set_origin(origin);
        let name = op.name();
        let added = self.graph.add_multi(op, &operands);
        self.graph.set_origin("");
        let outputs = added.or_else(|error| {
            self.fault_at(
                op_at,
                format_args!("operands that `{name}` can take"),
                format_args!("one that {}", error.error),
            )
        })?;
        if outputs.len() != results.len() {
            let expected = format!("{} results of `{name}`", outputs.len());
            return self.fault_at(results[0].number_at, expected, results.len());
        }
        for (result, &id) in results.iter().zip(&outputs) {
            let inferred = self.graph.ty(id);
            if inferred != &result.ty {
                let expected = format!("{inferred}, the type that `{name}` gives");
                return self.fault_at(result.ty_at, expected, &result.ty);
            }
            if let Some(name) = &result.name {
                self.graph.rename(id, name.as_str());
            }
            self.define(result, id)?;
        }
        Ok(())
    }

    fn op(&mut self) -> Parsed<Op> {
        let at = self.at;
        let name = self.word();
        let mut attributes = Map::new();
        let mut positions = Vec::new();
        if self.take("[") {
            while !self.take("]") {
                if !attributes.is_empty() {
                    self.expect(",").or_else(|_| self.fault("`,` or `]`"))?;
                }
                self.skip_space();
                let key_at = self.at;
                let key = self.word();
                if key.is_empty() {
                    return self.fault("an attribute's name");
                }
                self.expect("=")?;
                let value: Value = self.json("a value in JSON")?;
                if attributes.insert(key.to_owned(), value).is_some() {
                    return self.fault_at(key_at, "each attribute once", format_args!("`{key}` again"));
                }
                positions.push((key, key_at));
            }
        }
        let op = match Op::from_text(name, Value::Object(attributes.clone())) {
            None => {
                self.at = at;
                return self.fault("an operator's name");
            }
            Some(Err(error)) => return self.fault_at(at, format_args!("the attributes of `{name}`"), error),
            Some(Ok(op)) => op,
        };
        let printed = op.attributes().unwrap_or_default();
        for (key, key_at) in positions {
            if printed.get(key).is_some() {
                continue;
            }
            // Either it has the value that is not printed, or the operator does not look at it at all, and then it
            // does not mind a value that fits no type either.
            let mut others = attributes.clone();
            others.insert(key.to_owned(), serde_json::json!({"": {}}));
            if let Some(Ok(_)) = Op::from_text(name, Value::Object(others)) {
                return self.fault_at(key_at, format_args!("an attribute of `{name}`"), format_args!("`{key}`"));
            }
        }
        Ok(op)
    }

    fn constant(&mut self) -> Parsed<()> {
        let declaration = self.declaration()?;
        self.expect("=")?;
        let data = self.data(&declaration.ty)?;
        let tensor = match Tensor::new(declaration.ty.clone(), data) {
            Ok(tensor) => tensor,
            Err(error) => return self.fault_at(declaration.ty_at, "as many elements as the type has", error),
        };
        let id = self.graph.add_constant(declaration.name.as_deref().unwrap_or_default(), tensor);
        self.define(&declaration, id)
    }

    fn data(&mut self, ty: &TensorType) -> Parsed<Data> {
        let (dtype, count) = (ty.dtype, ty.shape.count());
        if self.take("[") {
            let mut elements = Vec::new();
            while !self.take("]") {
                if !elements.is_empty() {
                    self.expect(",").or_else(|_| self.fault("`,` or `]`"))?;
                }
                if elements.len() == count {
                    self.skip_space();
                    return self.fault(format_args!("`]` after the {count} elements of {ty}"));
                }
                elements.push(self.element(dtype)?);
            }
            if elements.len() < count {
                self.at -= 1;
                return self.fault(format_args!("{count} elements of {ty}, not {}", elements.len()));
            }
            let mut elements = elements.into_iter();
            return Ok(pack(dtype, count, || elements.next().unwrap_or_default()));
        }
        self.skip_space();
        let at = self.at;
        match self.word() {
            "absent" => Ok(Data::absent(ty.bytes())),
            "elided" => {
                self.skip_space();
                let at = self.at;
                let bytes: usize = self.number("the number of bytes")?;
                if bytes != ty.bytes() {
                    return self.fault_at(at, format_args!("the {} bytes of {ty}", ty.bytes()), bytes);
                }
                let hash = self.run(|c| c.is_ascii_hexdigit());
                if hash.is_empty() { self.fault("a hash") } else { Ok(Data::absent(bytes)) }
            }
            "hex" => self.hex(ty),
            "splat" => {
                let bits = self.element(dtype)?;
                self.reserve(at, ty)?;
                Ok(pack(dtype, count, || bits))
            }
            "seeded" => {
                let mut state: u64 = self.number("a seed")?;
                self.reserve(at, ty)?;
                Ok(pack(dtype, count, || random_bits(dtype, &mut state)))
            }
            _ if ty.shape.rank() == 0 => {
                self.at = at;
                let bits = self.element(dtype)?;
                Ok(pack(dtype, 1, || bits))
            }
            _ => {
                self.at = at;
                self.fault("`[`, `absent`, `elided`, `hex`, `seeded` or `splat`")
            }
        }
    }

    /// Takes the size of a constant whose text is shorter than itself off what the whole text may still generate.
    fn reserve(&mut self, at: usize, ty: &TensorType) -> Parsed<()> {
        match self.generated_bytes.checked_sub(ty.bytes()) {
            Some(left) => {
                self.generated_bytes = left;
                Ok(())
            }
            None => {
                let expected = format!("at most {GENERATED_BYTES} bytes of `splat` and `seeded` constants");
                self.fault_at(at, expected, format_args!("{} more", ty.bytes()))
            }
        }
    }

    fn element(&mut self, dtype: DType) -> Parsed<u64> {
        self.skip_space();
        let at = self.at;
        let text = self.run(is_word);
        parse_element(dtype, text).map_or_else(
            || {
                self.at = at;
                self.fault(format_args!("a number of type {dtype}"))
            },
            Ok,
        )
    }

    fn hex(&mut self, ty: &TensorType) -> Parsed<Data> {
        self.expect("\"")?;
        let at = self.at;
        let digits = self.run(|c| c.is_ascii_hexdigit()).as_bytes();
        if digits.len() != 2 * ty.bytes() {
            let expected = format!("2 digits for each of the {} bytes of {ty}", ty.bytes());
            return self.fault_at(at, expected, format_args!("{} digits", digits.len()));
        }
        self.expect("\"")?;
        let digit = |digit: u8| (digit as char).to_digit(16).unwrap_or_default() as u8;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
        if ty.dtype == DType::Bool && bytes.iter().any(|&byte| byte > 1) {
            return self.fault_at(at, "bytes 00 and 01 of truth values", "another");
        }
        Ok(Data::from_bytes(bytes))
    }
}

/// The next element of a `seeded` constant.
fn random_bits(dtype: DType, state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    if dtype == DType::Bool {
        z & 1
    } else if dtype.is_float() {
        let sum: u64 = (0..4).map(|part| z >> (16 * part) & 0xffff).sum();
        float_bits(dtype, (sum as f64 / 65536.0 - 2.0) * 3.0f64.sqrt())
    } else if dtype.is_signed() {
        // Integers of type i4 take the low bits as they are; wider ones extend the sign.
        ((z & 0xf) as i64 - 8) as u64
    } else {
        z & 0xf
    }
}
