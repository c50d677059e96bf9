//! The order of elements in searches and sorts.

use std::cmp::Ordering;

/// Values in a total order. NaN is above every number and equal to itself; 0 and -0 are equal.
pub(crate) trait Ordered: Copy + Send + Sync {
    /// How `self` stands to `other`.
    fn order(self, other: Self) -> Ordering;
}

macro_rules! floats {
    ($($float:ty)*) => {
        $(impl Ordered for $float {
            fn order(self, other: Self) -> Ordering {
                self.partial_cmp(&other).unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
            }
        })*
    };
}

macro_rules! integers {
    ($($integer:ty)*) => {
        $(impl Ordered for $integer {
            fn order(self, other: Self) -> Ordering {
                self.cmp(&other)
            }
        })*
    };
}

floats!(f32 f64);
integers!(i64 u64);
