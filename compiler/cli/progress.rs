//! What is being done, on standard error and only on a terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line that shows what is being done. It disappears when this is dropped.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Shows nothing yet.
    pub fn new() -> Self {
        // Indicatif looks for a terminal itself, but would start its thread all the same.
        Progress(std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        }))
    }

    /// Something else is being done now.
    pub fn stage(&self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what.to_owned());
        }
    }

    /// Something that takes a known number of steps is being done now.
    pub fn steps(&self, what: &str, count: usize) {
        self.stage(what);
        if let Some(bar) = &self.0
            && let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len}")
        {
            bar.set_style(style);
            bar.set_length(count as u64);
        }
    }

    /// One step is done.
    pub fn step(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
