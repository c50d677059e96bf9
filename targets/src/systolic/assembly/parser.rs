//! From text to instructions.

use std::ops::{Deref, DerefMut};
use std::str::FromStr;

use smallvec::SmallVec;
use tcc_ir::DType;
use tcc_ir::ops::{BinaryFn, ScatterReduction, UnaryFn};

use super::writer::{fold_name, reduction_name};
use crate::scanner::{AssemblyError, Parsed, Scanner};
use crate::systolic::code::{Call, Code, MAX_BASES, RoutineId};
use crate::systolic::isa::{
    DmaDim, DramAddress, Fold, FoldFn, Instruction, MAX_DIMS, Map, MapFn, Memory, Multiply, Operation, Outer, Preload,
    Register, RowTransfer, Scan, Sort, Source, Transfer, Unit, Waits, Walk,
};

/// Reads a program.
pub fn assemble(text: &str) -> Result<Code, AssemblyError> {
    let mut routines: Vec<Vec<Instruction>> = Vec::new();
    let mut calls = Vec::new();
    let mut plain = false;
    for (index, full) in text.lines().enumerate() {
        let line = full.split('#').next().unwrap_or(full);
        let mut parser = Parser(Scanner { line, number: index + 1, at: 0 });
        parser.blank();
        match parser.word() {
            "" if parser.rest().is_empty() => {}
            "routine" if !plain && calls.is_empty() => {
                parser.routine(routines.len())?;
                routines.push(Vec::new());
            }
            "call" if !plain => calls.push(parser.call(routines.len())?),
            _ if !calls.is_empty() => return parser.error("`call`"),
            _ => {
                let instruction = parser.instruction()?;
                plain |= routines.is_empty();
                match routines.last_mut() {
                    Some(routine) => routine.push(instruction),
                    None => routines.push(vec![instruction]),
                }
            }
        }
    }
    if plain || (routines.is_empty() && calls.is_empty()) {
        return Ok(Code::from(routines.pop().unwrap_or_default()));
    }
    Code::new(routines, calls).map_err(|error| AssemblyError {
        line: text.lines().count(),
        column: 1,
        expected: "calls that make a program".to_owned(),
        found: format!("ones that do not: {error}"),
    })
}

struct Parser<'a>(Scanner<'a>);

impl<'a> Deref for Parser<'a> {
    type Target = Scanner<'a>;

    fn deref(&self) -> &Scanner<'a> {
        &self.0
    }
}

impl<'a> DerefMut for Parser<'a> {
    fn deref_mut(&mut self) -> &mut Scanner<'a> {
        &mut self.0
    }
}

impl Parser<'_> {
    fn field<T: TryFrom<i128>>(&mut self, name: &str) -> Parsed<T> {
        self.key(name)?;
        self.integer()
    }

    fn key(&mut self, name: &str) -> Parsed<()> {
        if self.word() != name {
            return self.error(format!("`{name}=`"));
        }
        self.expect(name)?;
        self.expect("=")
    }

    fn pair<A: TryFrom<i128>, B: TryFrom<i128>>(&mut self, name: &str) -> Parsed<(A, B)> {
        let first = self.field(name)?;
        self.expect(":")?;
        Ok((first, self.integer()?))
    }

    fn dtype(&mut self) -> Parsed<DType> {
        self.read("an element type", |word| DType::from_str(word).ok())
    }

    fn dtype_field(&mut self, name: &str) -> Parsed<DType> {
        self.key(name)?;
        self.dtype()
    }

    /// A bracketed list of at most [`MAX_DIMS`] elements.
    fn list<T, const N: usize>(&mut self, mut element: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<SmallVec<[T; N]>>
    where
        [T; N]: smallvec::Array<Item = T>,
    {
        self.expect("[")?;
        let mut list = SmallVec::new();
        while !self.takes("]") {
            if !list.is_empty() {
                self.expect(",")?;
            }
            if list.len() == MAX_DIMS {
                return self.error(format!("`]` after {MAX_DIMS} elements, the most there can be"));
            }
            list.push(element(self)?);
        }
        Ok(list)
    }

    fn instruction(&mut self) -> Parsed<Instruction> {
        let op = self.operation()?;
        let waits = self.waits()?;
        self.end("`wait(` or the end of the line")?;
        Ok(Instruction { waits, op })
    }

    /// The line that begins the routine with this number.
    fn routine(&mut self, number: usize) -> Parsed<()> {
        self.expect("routine")?;
        self.read(&format!("{number}, the number of the next routine"), |word| {
            word.parse().ok().filter(|&given: &usize| given == number)
        })?;
        self.end("the end of the line")
    }

    fn call(&mut self, routines: usize) -> Parsed<Call> {
        self.expect("call")?;
        let routine = self.read("the number of a routine", |word| {
            word.parse().ok().filter(|&number: &u32| (number as usize) < routines)
        })?;
        let mut bases = Vec::new();
        while !self.word().is_empty() {
            if bases.len() == MAX_BASES {
                return self.error(format!("the end of the line after {MAX_BASES} bases, the most there can be"));
            }
            bases.push(self.integer()?);
        }
        self.end("a base or the end of the line")?;
        Ok(Call { routine: RoutineId(routine), bases })
    }

    fn dram(&mut self) -> Parsed<DramAddress> {
        self.key("dram")?;
        let word = self.word();
        let Some((register, _)) = word.strip_prefix('r').and_then(|rest| rest.split_once('+')) else {
            return Ok(DramAddress::absolute(self.integer()?));
        };
        let Some(number) = register.parse().ok().filter(|&number: &u8| number > 0) else {
            return self.error("a base register from r1 to r255");
        };
        self.at += "r".len() + register.len() + "+".len();
        Ok(DramAddress { register: Register(number), offset: self.integer()? })
    }

    fn waits(&mut self) -> Parsed<Waits> {
        let mut waits = Waits::default();
        if !self.flag("wait") {
            return Ok(waits);
        }
        self.expect("(")?;
        loop {
            let unit = self.read("a unit that is not yet waited for", |word| {
                Unit::ALL.into_iter().find(|unit| unit.name() == word && waits.0[unit.index()].is_none())
            })?;
            self.expect("<=")?;
            waits.0[unit.index()] = Some(self.integer()?);
            if self.takes(")") {
                return Ok(waits);
            }
            self.expect(",")?;
        }
    }

    fn operation(&mut self) -> Parsed<Operation> {
        let word = self.word();
        let start = self.at;
        self.at += word.len();
        match word {
            "load" => Ok(Operation::Load(self.transfer()?)),
            "store" => Ok(Operation::Store(self.transfer()?)),
            "load_rows" => Ok(Operation::LoadRows(self.rows()?)),
            "store_rows" => {
                let rows = self.rows()?;
                self.key("reduction")?;
                let reduction = self.read("a reduction", |word| {
                    ScatterReduction::ALL.into_iter().find(|&reduction| reduction_name(reduction) == word)
                })?;
                Ok(Operation::StoreRows(rows, reduction, self.dtype_field("dtype")?))
            }
            "preload" => self.preload(),
            "multiply" => self.multiply(),
            "outer" => self.outer(),
            "map" => self.map(),
            "fold" => self.fold(),
            "scan" => self.scan(),
            "sort" => self.sort(),
            _ => {
                self.at = start;
                self.error("an instruction")
            }
        }
    }

    fn transfer(&mut self) -> Parsed<Transfer> {
        Ok(Transfer {
            dram: self.dram()?,
            scratchpad: self.field("spm")?,
            element_bytes: self.field("element")?,
            dims: {
                self.key("dims")?;
                self.list(|parser| {
                    let size = parser.integer()?;
                    parser.expect(":")?;
                    let dram_stride = parser.integer()?;
                    parser.expect(":")?;
                    Ok(DmaDim { size, dram_stride, scratchpad_stride: parser.integer()? })
                })?
            },
        })
    }

    fn rows(&mut self) -> Parsed<RowTransfer> {
        let dram = self.dram()?;
        let scratchpad = self.field("spm")?;
        let row_bytes = self.field("bytes")?;
        let (rows, row_stride) = self.pair("rows")?;
        let (outer, outer_stride) = self.pair("outer")?;
        Ok(RowTransfer {
            dram,
            scratchpad,
            row_bytes,
            row_stride,
            rows,
            outer,
            outer_stride,
            indices: self.field("indices")?,
            index_dtype: self.dtype_field("index")?,
            count: self.field("count")?,
        })
    }

    fn zero_point(&mut self) -> Parsed<Option<u32>> {
        if self.word() == "zero" { self.field("zero").map(Some) } else { Ok(None) }
    }

    fn preload(&mut self) -> Parsed<Operation> {
        let address = self.field("spm")?;
        let dtype = self.dtype_field("dtype")?;
        let (k, k_stride) = self.pair("k")?;
        let (n, n_stride) = self.pair("n")?;
        let (groups, group_stride) = if self.word() == "groups" { self.pair("groups")? } else { (1, 0) };
        let zero_point = self.zero_point()?;
        Ok(Operation::Preload(Preload { address, dtype, groups, group_stride, k, n, k_stride, n_stride, zero_point }))
    }

    fn multiply(&mut self) -> Parsed<Operation> {
        let address = self.field("spm")?;
        let dtype = self.dtype_field("dtype")?;
        let (m, m_stride) = self.pair("m")?;
        let k_stride = self.field("k")?;
        let accumulator_row = self.field("row")?;
        let (group_stride, group_rows) = if self.word() == "group" { self.pair("group")? } else { (0, 0) };
        Ok(Operation::Multiply(Multiply {
            address,
            dtype,
            group_stride,
            m,
            m_stride,
            k_stride,
            accumulator_row,
            group_rows,
            accumulate: self.flag("accumulate"),
            switch_weights: self.flag("switch"),
            zero_point: self.zero_point()?,
        }))
    }

    fn outer(&mut self) -> Parsed<Operation> {
        let m = self.field("m")?;
        let n = self.field("n")?;
        let k = self.field("k")?;
        let accumulator_row = self.field("row")?;
        let accumulate = self.flag("accumulate");
        let a = self.walk(2)?;
        let a_zero_point = self.zero_point()?;
        self.expect(",")?;
        let b = self.walk(2)?;
        let b_zero_point = self.zero_point()?;
        Ok(Operation::Outer(Outer { m, n, k, a, b, a_zero_point, b_zero_point, accumulator_row, accumulate }))
    }

    fn dims(&mut self) -> Parsed<SmallVec<[u32; 4]>> {
        self.key("dims")?;
        self.list(|parser| parser.integer())
    }

    /// A walk with as many strides as the nest has dimensions.
    fn walk(&mut self, rank: usize) -> Parsed<Walk> {
        let memory = self.read("`spm:` or `acc:`", |word| match word {
            "spm" => Some(Memory::Scratchpad),
            "acc" => Some(Memory::Accumulators),
            _ => None,
        })?;
        self.expect(":")?;
        let dtype = self.dtype()?;
        self.expect("@")?;
        let address = self.integer()?;
        self.blank();
        let start = self.at;
        let strides: SmallVec<[i32; 4]> = self.list(|parser| parser.integer())?;
        if strides.len() != rank {
            self.at = start;
            return self.error(format!("{rank} strides, one for each dimension"));
        }
        Ok(Walk { memory, address, dtype, strides })
    }

    fn sources(&mut self, count: usize, rank: usize) -> Parsed<SmallVec<[Source; 2]>> {
        let mut sources = SmallVec::new();
        for index in 0..count {
            if index > 0 {
                self.expect(",")?;
            }
            sources.push(self.source(rank)?);
        }
        Ok(sources)
    }

    fn source(&mut self, rank: usize) -> Parsed<Source> {
        if self.flag("int") {
            return Ok(Source::Integer(self.integer()?));
        }
        if !self.flag("float") {
            return Ok(Source::Walk(self.walk(rank)?));
        }
        if self.flag("nan") {
            self.blank();
            let start = self.at;
            let value = f64::from_bits(self.integer()?);
            if value.is_nan() {
                return Ok(Source::Float(value));
            }
            self.at = start;
            return self.error("the bits of a NaN");
        }
        let value = self.read("a number", |word| word.parse().ok().filter(|value: &f64| !value.is_nan()))?;
        Ok(Source::Float(value))
    }

    fn map(&mut self) -> Parsed<Operation> {
        let function = self.read("a function", |word| {
            let unary = || UnaryFn::ALL.iter().find(|function| function.name() == word);
            let binary = || BinaryFn::ALL.iter().find(|function| function.name() == word);
            match word {
                "copy" => Some(MapFn::Copy),
                "select" => Some(MapFn::Select),
                _ => unary().map(|&function| MapFn::Unary(function)).or_else(|| binary().copied().map(MapFn::Binary)),
            }
        })?;
        let dims = self.dims()?;
        let destination = self.walk(dims.len())?;
        self.expect("<-")?;
        let sources = self.sources(function.operands(), dims.len())?;
        Ok(Operation::Map(Map { function, dims, destination, sources }))
    }

    fn fold(&mut self) -> Parsed<Operation> {
        let function =
            self.read("a fold function", |word| FoldFn::ALL.into_iter().find(|&function| fold_name(function) == word))?;
        let dims = self.dims()?;
        let reduced: u8 = self.field("reduced")?;
        if usize::from(reduced) > dims.len() {
            return self.error(format!("at most {} folded dimensions before", dims.len()));
        }
        let accumulate = self.flag("accumulate");
        let destination = self.walk(dims.len())?;
        self.expect("<-")?;
        let sources = self.sources(function.operands(), dims.len())?;
        Ok(Operation::Fold(Fold { function, dims, reduced, accumulate, destination, sources }))
    }

    fn scan(&mut self) -> Parsed<Operation> {
        let dims = self.dims()?;
        let exclusive = self.flag("exclusive");
        let destination = self.walk(dims.len())?;
        self.expect("<-")?;
        let source = self.walk(dims.len())?;
        Ok(Operation::Scan(Scan { dims, exclusive, destination, source }))
    }

    fn sort(&mut self) -> Parsed<Operation> {
        let dims = self.dims()?;
        let k = self.field("k")?;
        let largest = self.flag("largest");
        let later_first = self.flag("later");
        let source = self.walk(dims.len())?;
        self.expect("->")?;
        let values = if self.flag("values") { Some(self.walk(dims.len())?) } else { None };
        let positions = if self.flag("positions") { Some(self.walk(dims.len())?) } else { None };
        Ok(Operation::Sort(Sort { dims, k, largest, later_first, source, values, positions }))
    }
}
