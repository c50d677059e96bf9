//! What neighbouring threads combine.

use tcc_ir::DType;
use tcc_ir::ops::BinaryFn;

use super::c::Writer;
use crate::kernel::writer::{Binding, Expressions, wraps};
use crate::kernel::{Scalar, SharedId};
use crate::number::FoldFn;

impl Writer<'_> {
    /// Combines in the order in which warps do it: by shared memory, or by reading other lanes' registers where that can be.
    pub fn reduce(&mut self, name: &str, function: FoldFn, dtype: DType, width: u32, scratch: SharedId) {
        let kernel = self.kernel;
        let shuffles = self.dialect.shuffles(kernel.threads);
        // Reductions within warps of any width are the only ones that would not count.
        let is_ours = shuffles && !kernel.needs_shared(scratch, u32::MAX);
        let scratch = kernel.shared[scratch.index()].name.as_str();
        let ty = self.dialect.scalar(Scalar::of(dtype));
        let warp = width.min(self.warp);
        self.unroll();
        self.line(&format!("for (int mask = {}; mask > 0; mask /= 2) {{", warp / 2));
        self.depth += 1;
        if shuffles {
            self.line(&format!("const {ty} other = __shfl_xor_sync(0xffffffff, {name}, mask);"));
        } else {
            self.shared_by_all(name, scratch, true);
            self.line(&format!("const {ty} other = {scratch}[thread ^ mask];"));
        }
        self.combine(name, function, dtype);
        self.depth -= 1;
        self.line("}");
        if width > warp {
            // Where nothing else uses the array, all have read it when they leave.
            self.shared_by_all(name, scratch, !is_ours);
            let is_whole = width == kernel.threads;
            let first = if is_whole { "0".to_owned() } else { format!("thread / {width} * {width}") };
            self.line(&format!("{name} = {scratch}[{first}];"));
            self.unroll();
            self.line(&format!("for (int slot = {warp}; slot < {width}; slot += {warp}) {{"));
            self.depth += 1;
            let at = if is_whole { "slot".to_owned() } else { format!("{first} + slot") };
            self.line(&format!("const {ty} other = {scratch}[{at}];"));
            self.combine(name, function, dtype);
            self.depth -= 1;
            self.line("}");
        }
        if width > warp || !shuffles {
            self.line(self.dialect.barrier());
        }
    }

    /// Writes what each thread holds where all threads can read it, if need be once all have read what was there.
    fn shared_by_all(&mut self, name: &str, scratch: &str, waits: bool) {
        if waits {
            self.line(self.dialect.barrier());
        }
        self.line(&format!("{scratch}[thread] = {name};"));
        self.line(self.dialect.barrier());
    }

    /// Combines a variable with that of another thread, as `combine` of the simulator's numbers does.
    fn combine(&mut self, name: &str, function: FoldFn, dtype: DType) {
        let sign = match function {
            FoldFn::Sum | FoldFn::Dot => "+",
            FoldFn::Product => "*",
            FoldFn::Max | FoldFn::Min => {
                let function = if function == FoldFn::Max { BinaryFn::Max } else { BinaryFn::Min };
                let value = self.chosen(function, dtype, name, "other");
                return self.line(&format!("{name} = {value};"));
            }
        };
        if dtype.is_float() {
            return self.line(&format!("{name} {sign}= other;"));
        }
        let unsigned = self.dialect.unsigned(Scalar::of(dtype));
        let (value, _) = match wraps(dtype) {
            true => self.signed(dtype, format!("({unsigned}){name} {sign} other")),
            false => self.narrowed(dtype, (format!("{name} {sign} other"), Binding::Sum)),
        };
        self.line(&format!("{name} = {value};"));
    }
}
