//! What OpenCL C and CUDA C++ say differently.

use tcc_ir::DType;

use crate::kernel::{Buffer, Kernel, Scalar, Shared};

/// Most blocks of a grid along its second and third axis (CUDA C++ Programming Guide, compute capabilities).
const MAX_BLOCKS: u32 = 65_535;

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenCL C 1.2.
    OpenCl,
    /// CUDA C++17.
    Cuda,
}

/// Words of OpenCL C that CUDA C++ has others for.
const WORDS: [(&str, &str); 12] = [
    ("inline", "__device__ inline"),
    ("uchar", "unsigned char"),
    ("ushort", "unsigned short"),
    ("uint", "unsigned"),
    ("ulong", "unsigned long long"),
    ("long", "long long"),
    ("0UL", "0ULL"),
    ("0L", "0LL"),
    ("63L", "63LL"),
    ("0xffffffffUL", "0xffffffffULL"),
    ("as_float", "__uint_as_float"),
    ("as_uint", "__float_as_uint"),
];

impl Dialect {
    /// The type of a register.
    pub fn scalar(self, scalar: Scalar) -> &'static str {
        match (self, scalar) {
            (_, Scalar::I32) => "int",
            (Dialect::OpenCl, Scalar::U32) => "uint",
            (Dialect::OpenCl, Scalar::I64) => "long",
            (Dialect::OpenCl, Scalar::U64) => "ulong",
            (Dialect::Cuda, Scalar::U32) => "unsigned",
            (Dialect::Cuda, Scalar::I64) => "long long",
            (Dialect::Cuda, Scalar::U64) => "unsigned long long",
            (_, Scalar::F32) => "float",
            (_, Scalar::F64) => "double",
        }
    }

    /// The type of elements in memory.
    pub fn stored(self, dtype: DType) -> &'static str {
        match (self, dtype) {
            (_, DType::F64) => "double",
            (_, DType::F32) => "float",
            (Dialect::OpenCl, DType::F16) => "half",
            (Dialect::OpenCl, DType::BF16 | DType::U16) => "ushort",
            (Dialect::OpenCl, DType::F8E4M3 | DType::F8E5M2 | DType::U8 | DType::Bool | DType::I4 | DType::U4) => {
                "uchar"
            }
            (Dialect::OpenCl, DType::I64) => "long",
            (_, DType::I32) => "int",
            (_, DType::I16) => "short",
            (Dialect::OpenCl, DType::I8) => "char",
            (Dialect::OpenCl, DType::U64) => "ulong",
            (Dialect::OpenCl, DType::U32) => "uint",
            (Dialect::Cuda, DType::F16) => "__half",
            (Dialect::Cuda, DType::BF16) => "__nv_bfloat16",
            (Dialect::Cuda, DType::U16) => "unsigned short",
            (Dialect::Cuda, DType::F8E4M3 | DType::F8E5M2 | DType::U8 | DType::Bool | DType::I4 | DType::U4) => {
                "unsigned char"
            }
            (Dialect::Cuda, DType::I64) => "long long",
            (Dialect::Cuda, DType::I8) => "signed char",
            (Dialect::Cuda, DType::U64) => "unsigned long long",
            (Dialect::Cuda, DType::U32) => "unsigned",
        }
    }

    /// The type of elements in an array in shared memory. Where halves are no type of their own, their bits lie there.
    pub fn shared(self, dtype: DType) -> &'static str {
        match (self, dtype) {
            (Dialect::OpenCl, DType::F16) => self.stored(DType::U16),
            (Dialect::OpenCl | Dialect::Cuda, _) => self.stored(dtype),
        }
    }

    /// What an array in shared memory is accessed by.
    pub fn shared_name(self, shared: &Shared) -> String {
        match (self, shared.dtype) {
            (Dialect::OpenCl, DType::F16) => format!("(__local half *){}", shared.name),
            (Dialect::OpenCl | Dialect::Cuda, _) => shared.name.clone(),
        }
    }

    /// The type of numbers without sign that are as wide as those of a register.
    pub fn unsigned(self, scalar: Scalar) -> &'static str {
        match scalar {
            Scalar::I64 | Scalar::U64 => self.scalar(Scalar::U64),
            _ => self.scalar(Scalar::U32),
        }
    }

    /// A number of a register's type as a literal.
    pub fn literal(self, dtype: DType, bits: u64) -> String {
        let scalar = Scalar::of(dtype);
        match scalar {
            Scalar::F32 => {
                let value = f64::from_bits(bits) as f32;
                match value {
                    _ if value.is_nan() => "NAN".to_owned(),
                    f32::INFINITY => "INFINITY".to_owned(),
                    f32::NEG_INFINITY => "-INFINITY".to_owned(),
                    _ => format!("{value:?}f"),
                }
            }
            Scalar::F64 => {
                let value = f64::from_bits(bits);
                match value {
                    _ if value.is_nan() => "(double)NAN".to_owned(),
                    f64::INFINITY => "(double)INFINITY".to_owned(),
                    f64::NEG_INFINITY => "-(double)INFINITY".to_owned(),
                    _ => format!("{value:?}"),
                }
            }
            Scalar::I32 => match bits as i64 {
                least if least == i64::from(i32::MIN) => "(-2147483647 - 1)".to_owned(),
                value => value.to_string(),
            },
            Scalar::I64 => match bits as i64 {
                i64::MIN => format!("(-9223372036854775807{} - 1)", self.long()),
                value => format!("{value}{}", self.long()),
            },
            Scalar::U32 => format!("{}u", bits as u32),
            Scalar::U64 => format!("{bits}U{}", self.long()),
        }
    }

    /// What ends literals of 64 bits.
    fn long(self) -> &'static str {
        match self {
            Dialect::OpenCl => "L",
            Dialect::Cuda => "LL",
        }
    }

    /// A function that was written in OpenCL C, word by word.
    pub fn translated(self, text: &str) -> String {
        match self {
            Dialect::OpenCl => text.to_owned(),
            Dialect::Cuda => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let mut out = String::new();
                // Addresses are of one kind.
                let text = text.replace("__global ", "");
                let mut rest = text.as_str();
                while let Some(first) = rest.chars().next() {
                    let length = if is_part(first) {
                        rest.find(|c| !is_part(c)).unwrap_or(rest.len())
                    } else {
                        first.len_utf8()
                    };
                    let (word, after) = rest.split_at(length);
                    out.push_str(WORDS.iter().find(|(own, _)| *own == word).map_or(word, |(_, other)| other));
                    rest = after;
                }
                out
            }
        }
    }

    /// What stands before a kernel's name: that it is one, for so many threads, of which a multiprocessor runs so many blocks.
    pub fn kernel(self, threads: u32, blocks: u32) -> String {
        match self {
            Dialect::OpenCl => format!("__kernel __attribute__((reqd_work_group_size({threads}, 1, 1)))"),
            Dialect::Cuda => format!("__global__ void __launch_bounds__({threads}, {blocks})"),
        }
    }

    /// A kernel's name where it is defined.
    pub fn kernel_name(self, name: &str) -> String {
        match self {
            Dialect::OpenCl => format!("void {name}"),
            Dialect::Cuda => name.to_owned(),
        }
    }

    /// A parameter. What blocks hand over to each other is read from memory and from nowhere else.
    pub fn parameter(self, buffer: &Buffer, is_handed: bool) -> String {
        let constant = if buffer.is_written { "" } else { "const " };
        let (ty, name) = (self.stored(buffer.dtype), &buffer.name);
        match self {
            Dialect::OpenCl if is_handed => format!("volatile __global {ty} *restrict {name}"),
            Dialect::OpenCl => format!("{constant}__global {ty} *restrict {name}"),
            Dialect::Cuda => format!("{constant}{ty} *__restrict__ {name}"),
        }
    }

    /// The thread's number in its block.
    pub fn thread(self) -> &'static str {
        match self {
            Dialect::OpenCl => "get_local_id(0)",
            Dialect::Cuda => "threadIdx.x",
        }
    }

    /// The block's number along an axis.
    pub fn block(self, axis: usize) -> String {
        match self {
            Dialect::OpenCl => format!("get_group_id({axis})"),
            Dialect::Cuda => format!("blockIdx.{}", ["x", "y", "z"][axis.min(2)]),
        }
    }

    /// Whether a kernel's blocks are launched along one axis, since there are too many along others.
    pub fn is_flat(self, kernel: &Kernel) -> bool {
        self == Dialect::Cuda && kernel.grid[1..].iter().any(|&blocks| blocks > MAX_BLOCKS)
    }

    /// Waits for all threads of the block.
    pub fn barrier(self) -> &'static str {
        match self {
            Dialect::OpenCl => "barrier(CLK_LOCAL_MEM_FENCE);",
            Dialect::Cuda => "__syncthreads();",
        }
    }

    /// Makes a group of copies, where they are not made at once.
    pub fn commit(self) -> Option<&'static str> {
        match self {
            Dialect::OpenCl => None,
            Dialect::Cuda => Some("cp_async_commit();"),
        }
    }

    /// Waits until so many groups of copies are on their way at the most.
    pub fn wait(self, groups: u32) -> Option<String> {
        match self {
            Dialect::OpenCl => None,
            Dialect::Cuda => Some(format!("cp_async_wait<{groups}>();")),
        }
    }

    /// Whether lanes of a block of so many threads read each other's registers, for which all lanes of a warp must be there.
    pub fn shuffles(self, threads: u32) -> bool {
        self == Dialect::Cuda && threads.is_multiple_of(32)
    }
}
