//! What OpenCL C and CUDA C++ say differently.

use tcc_ir::DType;

use crate::kernel::writer::Language;
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

impl Dialect {
    /// What it is called where the same is written for other targets.
    pub fn language(self) -> Language {
        match self {
            Dialect::OpenCl => Language::OpenCl,
            Dialect::Cuda => Language::Cuda,
        }
    }

    /// The type of a register.
    pub fn scalar(self, scalar: Scalar) -> &'static str {
        self.language().scalar(scalar)
    }

    /// The type of elements in memory.
    pub fn stored(self, dtype: DType) -> &'static str {
        self.language().stored(dtype)
    }

    /// The type of numbers without sign that are as wide as those of a register.
    pub fn unsigned(self, scalar: Scalar) -> &'static str {
        self.language().unsigned(scalar)
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

    /// What stands before everything else. Products are not joined with sums where the kernel does not say so.
    pub fn prelude(self, has_doubles: bool) -> &'static str {
        match (self, has_doubles) {
            (Dialect::OpenCl, true) => {
                "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n#pragma OPENCL FP_CONTRACT OFF\n"
            }
            (Dialect::OpenCl, false) => "#pragma OPENCL FP_CONTRACT OFF\n",
            (Dialect::Cuda, _) => {
                "// Compiled with -fmad=false: products are joined with sums only where a kernel says so.
#include \"dequantize.h\"

namespace kernels {
"
            }
        }
    }

    /// What stands after everything else.
    pub fn end(self) -> &'static str {
        match self {
            Dialect::OpenCl => "",
            Dialect::Cuda => "\n} // namespace kernels\n",
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
