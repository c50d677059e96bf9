//! How kernels of a plan are shared out, in words.

/// Of each of so many kernels what its calls say, in their order; what follows itself is said once.
pub(crate) fn tilings<'c>(kernels: usize, calls: impl Iterator<Item = (u32, &'c str)>) -> Vec<String> {
    let mut all: Vec<Vec<&str>> = vec![Vec::new(); kernels];
    for (kernel, tiling) in calls {
        let own = &mut all[kernel as usize];
        if own.last() != Some(&tiling) {
            own.push(tiling);
        }
    }
    all.into_iter().map(|own| own.join("; ")).collect()
}
