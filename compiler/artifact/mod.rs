//! Builds on disk: a folder with a compiled program and all that belongs to it.
//!
//! | file | what it is |
//! |---|---|
//! | `program.tcc` | the program, as `program.proto` defines it |
//! | `weights.bin` | its weights, packed for the machine |
//! | `schedule.txt` | its schedule, for people |
//! | `report.json` | its cycles and all that is known of it, see [`Report`](tcc_targets::Report) |
//! | `trace.json` | what every unit did when; opens in Perfetto |
//! | `code/` | the machine's code |
//! | `model/` | the model that it was built from, to check against |
//!
//! [`write`](write::write) makes one, whole or not at all; [`Artifact::open`] reads one. The same model, options and
//! version give the same bytes, on every machine and for any number of threads.

mod format;
pub mod read;
pub mod reference;
pub mod write;

pub use read::{Artifact, ReadError};
pub use reference::Reference;
pub use write::{BuildError, Contents, write};

/// Raised with every change that older versions of tcc would misread.
const FORMAT: u32 = 3;

/// What `program.tcc` begins with, after the key and length of the field.
const MAGIC: &str = "tcc program";

const PROGRAM: &str = "program.tcc";
const WEIGHTS: &str = "weights.bin";
const SCHEDULE: &str = "schedule.txt";
const REPORT: &str = "report.json";
const TRACE: &str = "trace.json";
const CODE: &str = "code";
const MODEL: &str = "model";

/// Everything that a build folder may hold.
const ENTRIES: [&str; 7] = [PROGRAM, WEIGHTS, SCHEDULE, REPORT, TRACE, CODE, MODEL];
