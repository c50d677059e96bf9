//! Blocks that arrive: the last of those beside each other goes on with what all have written.

use super::c::Writer;
use super::dialect::Dialect;
use crate::kernel::{BufferId, SharedId};

impl Writer<'_> {
    /// One thread counts for its block, when all that the block has written can be seen. Who is last sets the counter back.
    pub fn arrive(&mut self, var: &str, counters: BufferId, axis: usize, scratch: SharedId) {
        let kernel = self.kernel;
        let (counters, scratch) = (&kernel.buffers[counters.index()].name, &kernel.shared[scratch.index()].name);
        let counter = self.counter(axis);
        let last = kernel.grid[axis] - 1;
        let (before, after): (&[&str], &[&str]) = match self.dialect {
            Dialect::OpenCl => {
                let barrier = "barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);";
                (&["mem_fence(CLK_GLOBAL_MEM_FENCE);", barrier], &[barrier, "mem_fence(CLK_GLOBAL_MEM_FENCE);"])
            }
            Dialect::Cuda => (&["__threadfence();", "__syncthreads();"], &["__syncthreads();", "__threadfence();"]),
        };
        before.iter().for_each(|line| self.line(line));
        match self.dialect {
            Dialect::OpenCl => {
                self.line("if (thread == 0) {");
                self.depth += 1;
                self.line(&format!(
                    "volatile __global uint *counter = (volatile __global uint *){counters} + {counter};"
                ));
                self.line(&format!("{scratch}[0] = atomic_inc(counter) == {last}u;"));
                self.line(&format!("if ({scratch}[0]) *counter = 0;"));
                self.depth -= 1;
                self.line("}");
            }
            // It wraps to 0 by itself.
            Dialect::Cuda => self.line(&format!(
                "if (thread == 0) {scratch}[0] = atomicInc({counters} + {counter}, {last}u) == {last}u;"
            )),
        }
        after.iter().for_each(|line| self.line(line));
        self.line(&format!("const int {var} = {scratch}[0];"));
    }

    /// The number of the block's counter: its place along the axes but one.
    fn counter(&self, axis: usize) -> String {
        let grid = self.kernel.grid;
        let (mut index, mut size) = (Vec::new(), 1u64);
        for other in (0..3).filter(|&other| other != axis) {
            if grid[other] > 1 {
                let number = self.block(other);
                let number = if number.contains(' ') { format!("({number})") } else { number };
                index.push(if size == 1 { number } else { format!("{number} * {size}") });
            }
            size *= u64::from(grid[other]);
        }
        if index.is_empty() { "0".to_owned() } else { index.join(" + ") }
    }
}
