//! Elements in memory: of buffers and of shared arrays, one by one and several at once.

use tcc_ir::DType;

use super::c::Writer;
use super::dialect::Dialect;
use crate::kernel::writer::{Binding, Expressions, Helper};
use crate::kernel::{Buffer, BufferId, Expr, ExprId, LINE, Region, Scalar, Stmt};

impl Writer<'_> {
    /// An assignment to an element in memory.
    pub fn stored(&mut self, name: &str, dtype: DType, index: ExprId, value: ExprId) -> String {
        let (at, value) = (self.expr(index, Binding::Ternary), self.expr(value, Binding::Ternary));
        self.put(name, dtype, &at, &value)
    }

    /// The same, with what is written already.
    fn put(&mut self, name: &str, dtype: DType, at: &str, value: &str) -> String {
        match (dtype, self.dialect) {
            (DType::F16, Dialect::OpenCl) => format!("vstore_half_rte({value}, {at}, {name});"),
            _ => format!("{name}[{at}] = {};", self.narrow(dtype, value)),
        }
    }

    /// A number as elements of a type are stored, where that is not what a cast makes of it.
    fn narrow(&mut self, dtype: DType, value: &str) -> String {
        let function = match dtype {
            DType::F16 => "__float2half_rn",
            DType::BF16 => self.helper(Helper::ToBf16),
            DType::F8E4M3 => self.helper(Helper::ToF8E4M3),
            DType::F8E5M2 => self.helper(Helper::ToF8E5M2),
            _ => return value.to_owned(),
        };
        format!("{function}({value})")
    }

    /// An element in memory.
    pub fn loaded(&mut self, name: &str, dtype: DType, index: ExprId) -> (String, Binding) {
        let at = self.expr(index, Binding::Ternary);
        self.element(name, dtype, &at)
    }

    /// The same, at an index that is written already.
    pub fn element(&mut self, name: &str, dtype: DType, at: &str) -> (String, Binding) {
        let text = match (dtype, self.dialect) {
            (DType::F16, Dialect::OpenCl) => format!("vload_half({at}, {name})"),
            (DType::I4, _) => format!("{}({name}, {at})", self.helper(Helper::LoadI4)),
            (DType::U4, _) => format!("{}({name}, {at})", self.helper(Helper::LoadU4)),
            _ => return self.widened(dtype, format!("{name}[{at}]")),
        };
        (text, Binding::Whole)
    }

    /// What is stored of an element of a type as a register holds it.
    fn widened(&mut self, dtype: DType, stored: String) -> (String, Binding) {
        let text = match dtype {
            DType::F16 => format!("__half2float({stored})"),
            DType::BF16 => format!("{}({stored})", self.helper(Helper::FromBf16)),
            DType::F8E4M3 => format!("{}({stored})", self.helper(Helper::FromF8E4M3)),
            DType::F8E5M2 => format!("{}({stored})", self.helper(Helper::FromF8E5M2)),
            // Whatever a file holds, 1 is true.
            DType::Bool => return (format!("{stored} != 0"), Binding::Compare),
            _ => stored,
        };
        (text, Binding::Whole)
    }

    /// An array that holds elements as they are loaded.
    pub fn packed_array(&mut self, name: &str, dtype: DType, count: u32) {
        match self.dialect {
            // As bits, whatever they mean: halves are no numbers everywhere.
            Dialect::OpenCl => {
                self.line(&format!("{} {name}[{}];", self.dialect.shared(dtype), units(dtype, count)));
            }
            Dialect::Cuda => self.line(&format!("unsigned {name}[{}];", words(dtype, count))),
        }
    }

    /// An element of such an array.
    pub fn packed_element(&mut self, name: &str, dtype: DType, at: &str) -> (String, Binding) {
        match self.dialect {
            Dialect::OpenCl if dtype == DType::F16 => self.element(&format!("(const half *){name}"), dtype, at),
            Dialect::OpenCl if dtype.bits() < 8 => {
                let bits = format!("({name}[{at} / 2] >> {at} % 2 * 4 & 15)");
                (if dtype == DType::I4 { format!("(({bits} ^ 8) - 8)") } else { bits }, Binding::Whole)
            }
            Dialect::OpenCl => self.element(name, dtype, at),
            Dialect::Cuda => self.unpacked(name, dtype, at),
        }
    }

    /// Fills such an array.
    pub fn load_packed(&mut self, array: &str, buffer: &Buffer, from: ExprId, count: u32) {
        match self.dialect {
            Dialect::OpenCl => {
                let (bits, from) = (self.bits_of(buffer), self.unit_at(buffer, from));
                let count = units(buffer.dtype, count);
                self.line(&format!(
                    "for (int slot = 0; slot < {count}; ++slot) {array}[slot] = {bits}[{from} + slot];"
                ));
            }
            Dialect::Cuda if units(buffer.dtype, count) * (buffer.dtype.bits() as u32).max(8) < 32 => {
                let (name, at) = (&buffer.name, self.unit_at(buffer, from));
                let read = format!("{name}[{at}]");
                let bits = match buffer.dtype {
                    DType::F16 => format!("__half_as_ushort({read})"),
                    DType::BF16 => format!("__bfloat16_as_ushort({read})"),
                    DType::I8 => format!("(unsigned char){read}"),
                    _ => read,
                };
                self.line(&format!("{array}[0] = {bits};"));
            }
            Dialect::Cuda => {
                let address = self.address(buffer, from);
                self.line(&format!("load_words({array}, {address});"));
            }
        }
    }

    /// Writes what such an array holds.
    pub fn store_packed(&mut self, buffer: &Buffer, to: ExprId, array: &str, count: u32) {
        match self.dialect {
            Dialect::OpenCl => {
                let (bits, to) = (self.bits_of(buffer), self.unit_at(buffer, to));
                let count = units(buffer.dtype, count);
                self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {bits}[{to} + slot] = {array}[slot];"));
            }
            Dialect::Cuda => {
                let address = self.address(buffer, to);
                self.line(&format!("store_words({address}, {array});"));
            }
        }
    }

    /// Asks for a part of a buffer: each thread of the grid for some lines of it.
    pub fn prefetch(&mut self, buffer: BufferId, region: Region, asking: u32) {
        let kernel = self.kernel;
        let [x, y, _] = kernel.grid;
        let mut number = self.block(0);
        for (axis, across) in [(1, u64::from(x)), (2, u64::from(x) * u64::from(y))] {
            if kernel.grid[axis] > 1 {
                number = format!("{} * {across} + {number}", parted(&self.block(axis)));
            }
        }
        let (lines, blocks) = (region.lines().max(1), kernel.blocks());
        let (count, step) = (region.rows * lines, blocks * u64::from(asking));
        let wide = self.dialect.unsigned(Scalar::U64);
        let at = match region.rows {
            1 => format!("slot * {LINE}"),
            _ => format!("({wide})(slot / {lines}) * {} + slot % {lines} * {LINE}", region.pitch),
        };
        let name = &kernel.buffers[buffer.index()].name;
        let is_guarded = asking < kernel.threads;
        if is_guarded {
            self.line(&format!("if (thread < {asking}) {{"));
            self.depth += 1;
        }
        self.line(&format!("for (int slot = thread * {blocks} + {number}; slot < {count}; slot += {step}) {{"));
        self.line(&match self.dialect {
            Dialect::OpenCl => {
                format!("    prefetch((const __global uchar *){name} + {} + {at}, {LINE});", region.first)
            }
            Dialect::Cuda => {
                format!("    prefetch_line(reinterpret_cast<const unsigned char *>({name}) + {} + {at});", region.first)
            }
        });
        self.line("}");
        if is_guarded {
            self.depth -= 1;
            self.line("}");
        }
    }

    /// A buffer as bits, whatever they mean.
    fn bits_of(&self, buffer: &Buffer) -> String {
        let bits = self.dialect.shared(buffer.dtype);
        if bits == self.dialect.stored(buffer.dtype) {
            return buffer.name.clone();
        }
        let constant = if buffer.is_written { "" } else { "const " };
        format!("(({constant}__global {bits} *){})", buffer.name)
    }

    /// Reads elements that follow each other.
    pub fn load_vector(&mut self, array: &str, to: ExprId, buffer: &Buffer, from: ExprId, count: u32) {
        let (name, dtype) = (&buffer.name, buffer.dtype);
        match self.dialect {
            Dialect::OpenCl => {
                let (to, from) = (self.expr(to, Binding::Sum), self.expr(from, Binding::Sum));
                self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {{"));
                let (element, _) = self.element(name, dtype, &format!("{from} + slot"));
                self.line(&format!("    {array}[{to} + slot] = {element};"));
                self.line("}");
            }
            Dialect::Cuda => {
                let address = self.address(buffer, from);
                let to = self.slot_after(to);
                self.open_words(dtype, count);
                self.line(&format!("load_words(own_words, {address});"));
                let (element, _) = self.unpacked("own_words", dtype, "slot");
                self.for_slots(count, &format!("{array}[{to}] = {element};"));
                self.depth -= 1;
                self.line("}");
            }
        }
    }

    /// Writes elements that follow each other.
    pub fn store_vector(&mut self, buffer: &Buffer, to: ExprId, array: &str, from: ExprId, count: u32) {
        let (name, dtype) = (&buffer.name, buffer.dtype);
        match self.dialect {
            Dialect::OpenCl => {
                let (to, from) = (self.expr(to, Binding::Sum), self.expr(from, Binding::Sum));
                let value = format!("{array}[{from} + slot]");
                let text = self.put(name, dtype, &format!("{to} + slot"), &value);
                self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {text}"));
            }
            Dialect::Cuda => {
                let address = self.address(buffer, to);
                let from = self.slot_after(from);
                self.open_words(dtype, count);
                if dtype.bits() < 32 {
                    let words = words(dtype, count);
                    self.for_slots(words, "own_words[slot] = 0;");
                }
                let text = self.packed(dtype, &format!("{array}[{from}]"));
                self.for_slots(count, &text);
                self.line(&format!("store_words({address}, own_words);"));
                self.depth -= 1;
                self.line("}");
            }
        }
    }

    /// The index of a slot among those from another on.
    fn slot_after(&mut self, first: ExprId) -> String {
        match self.kernel.exprs[first.index()] {
            Expr::Integer(0) => "slot".to_owned(),
            _ => format!("{} + slot", self.expr(first, Binding::Sum)),
        }
    }

    /// Opens a scope with the words that hold so many elements.
    fn open_words(&mut self, dtype: DType, count: u32) {
        self.line("{");
        self.depth += 1;
        self.line(&format!("unsigned own_words[{}];", words(dtype, count)));
    }

    /// Where an element of a buffer lies; of those of four bits the first of a byte.
    fn address(&mut self, buffer: &Buffer, at: ExprId) -> String {
        format!("{} + {}", buffer.name, self.unit_at(buffer, at))
    }

    /// The same as an index.
    fn unit_at(&mut self, buffer: &Buffer, at: ExprId) -> String {
        match buffer.dtype.bits() {
            4 => format!("({} >> 1)", self.expr(at, Binding::Unary)),
            _ => self.expr(at, Binding::Sum),
        }
    }

    /// An element of words, by its name or number, as a register holds it.
    fn unpacked(&mut self, words: &str, dtype: DType, at: &str) -> (String, Binding) {
        let part = |each: u32| format!("{words}[{at} / {each}] >> {at} % {each} * {}", 32 / each);
        let half = |which: &str| format!("{words}[2 * ({at}){which}]");
        let stored = match dtype {
            DType::F64 => format!("__hiloint2double((int){}, (int){})", half(" + 1"), half("")),
            DType::I64 | DType::U64 => {
                let bits = format!("(unsigned long long){} << 32 | {}", half(" + 1"), half(""));
                if dtype == DType::U64 { format!("({bits})") } else { format!("(long long)({bits})") }
            }
            DType::F32 => format!("__uint_as_float({words}[{at}])"),
            DType::I32 => format!("(int){words}[{at}]"),
            DType::U32 => format!("{words}[{at}]"),
            DType::I4 => format!("((int)({words}[{at} / 8] << (28 - {at} % 8 * 4)) >> 28)"),
            DType::U4 => format!("({} & 15)", part(8)),
            DType::F16 => format!("__ushort_as_half((unsigned short)({}))", part(2)),
            DType::BF16 => format!("__ushort_as_bfloat16((unsigned short)({}))", part(2)),
            DType::I16 | DType::U16 => format!("({})({})", self.dialect.stored(dtype), part(2)),
            DType::F8E4M3 | DType::F8E5M2 | DType::I8 | DType::U8 | DType::Bool => {
                format!("({})({})", self.dialect.stored(dtype), part(4))
            }
        };
        self.widened(dtype, stored)
    }

    /// Puts a number into words as their element `slot`.
    fn packed(&mut self, dtype: DType, value: &str) -> String {
        let stored = self.narrow(dtype, value);
        let unsigned = match dtype.bits() {
            16 => "unsigned short",
            _ => "unsigned char",
        };
        let bits = match dtype {
            DType::F64 | DType::I64 | DType::U64 => {
                let low = if dtype == DType::F64 {
                    format!("(unsigned long long)__double_as_longlong({stored})")
                } else {
                    format!("(unsigned long long){stored}")
                };
                return format!(
                    "{{ own_words[2 * slot] = (unsigned){low}; own_words[2 * slot + 1] = (unsigned)({low} >> 32); }}"
                );
            }
            DType::F32 => return format!("own_words[slot] = __float_as_uint({stored});"),
            DType::I32 | DType::U32 => return format!("own_words[slot] = {stored};"),
            DType::F16 => format!("__half_as_ushort({stored})"),
            DType::BF16 => format!("__bfloat16_as_ushort({stored})"),
            DType::I4 | DType::U4 => format!("({stored} & 15)"),
            _ => format!("({unsigned}){stored}"),
        };
        let per_word = 32 / dtype.bits();
        format!("own_words[slot / {per_word}] |= (unsigned){bits} << slot % {per_word} * {};", dtype.bits())
    }

    /// Begins a copy to shared memory, or makes it where there is no other way.
    pub fn copy(&mut self, stmt: &Stmt) {
        let kernel = self.kernel;
        let Stmt::Copy { shared, to, buffer, from, count, when } = *stmt else { return };
        let (shared, buffer) = (&kernel.shared[shared.index()], &kernel.buffers[buffer.index()]);
        let (to, from) = (self.expr(to, Binding::Sum), self.expr(from, Binding::Sum));
        let is_known = matches!(kernel.exprs[when.index()], Expr::Integer(value) if value != 0);
        let (to_name, from_name) = (&shared.name, &buffer.name);
        match self.dialect {
            Dialect::OpenCl => {
                let name = self.bits_of(buffer);
                let value = format!("{name}[{from} + slot]");
                let value = if is_known { value } else { format!("{} ? {value} : 0", self.expr(when, Binding::Or)) };
                self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {to_name}[{to} + slot] = {value};"));
            }
            Dialect::Cuda => {
                let bytes = u64::from(count) * buffer.dtype.bits() as u64 / 8;
                let when = if is_known { String::new() } else { format!(", {}", self.expr(when, Binding::Ternary)) };
                self.line(&format!("cp_async<{bytes}>({to_name} + {to}, {from_name} + {from}{when});"));
            }
        }
    }
}

/// What is read at a time to have so many elements: elements, or bytes of two.
fn units(dtype: DType, count: u32) -> u32 {
    if dtype.bits() < 8 { count * dtype.bits() as u32 / 8 } else { count }
}

/// Words of 32 bits that so many elements take.
fn words(dtype: DType, count: u32) -> u32 {
    (count * dtype.bits() as u32).div_ceil(32)
}

/// An operand of a product.
fn parted(text: &str) -> String {
    if text.contains(' ') { format!("({text})") } else { text.to_owned() }
}
