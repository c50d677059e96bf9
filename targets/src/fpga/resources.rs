//! What a part has, and what of it something takes.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};

use serde::{Deserialize, Serialize};

/// Numbers of what a part is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Look-up tables of six inputs.
    pub luts: u64,
    /// Flip-flops.
    pub ffs: u64,
    /// DSP slices.
    pub dsps: u64,
    /// Blocks of RAM of 18 Kb; one of 36 Kb is two.
    pub bram18s: u64,
    /// Blocks of UltraRAM, 288 Kb each.
    pub urams: u64,
}

impl Resources {
    /// Each, with its name.
    pub fn named(self) -> [(&'static str, u64); 5] {
        let Resources { luts, ffs, dsps, bram18s, urams } = self;
        [("LUT", luts), ("FF", ffs), ("DSP", dsps), ("BRAM18", bram18s), ("URAM", urams)]
    }

    /// Of each the greater.
    pub fn max(self, other: Resources) -> Resources {
        Resources {
            luts: self.luts.max(other.luts),
            ffs: self.ffs.max(other.ffs),
            dsps: self.dsps.max(other.dsps),
            bram18s: self.bram18s.max(other.bram18s),
            urams: self.urams.max(other.urams),
        }
    }

    /// Whether all of it is there in a budget.
    pub fn fits(self, budget: Resources) -> bool {
        self.named().into_iter().zip(budget.named()).all(|((_, needed), (_, there))| needed <= there)
    }

    /// The resource of which it takes the largest share of a budget, and that share.
    pub fn binding(self, budget: Resources) -> (&'static str, f64) {
        let shares = self.named().into_iter().zip(budget.named());
        let shares = shares.filter(|&((_, needed), _)| needed > 0);
        let shares = shares.map(|((name, needed), (_, there))| (name, needed as f64 / there as f64));
        shares.fold(("LUT", 0.0), |most, own| if own.1 > most.1 { own } else { most })
    }
}

impl Add for Resources {
    type Output = Resources;

    fn add(self, other: Resources) -> Resources {
        Resources {
            luts: self.luts + other.luts,
            ffs: self.ffs + other.ffs,
            dsps: self.dsps + other.dsps,
            bram18s: self.bram18s + other.bram18s,
            urams: self.urams + other.urams,
        }
    }
}

impl AddAssign for Resources {
    fn add_assign(&mut self, other: Resources) {
        *self = *self + other;
    }
}

impl Mul<u64> for Resources {
    type Output = Resources;

    fn mul(self, times: u64) -> Resources {
        Resources {
            luts: self.luts * times,
            ffs: self.ffs * times,
            dsps: self.dsps * times,
            bram18s: self.bram18s * times,
            urams: self.urams * times,
        }
    }
}

impl Sum for Resources {
    fn sum<I: Iterator<Item = Resources>>(all: I) -> Resources {
        all.fold(Resources::default(), Add::add)
    }
}
