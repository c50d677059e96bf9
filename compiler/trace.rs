//! Traces in the JSON format of Chrome's trace viewer, which Perfetto opens.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::json;
use tcc_targets::TraceSpan;

/// Writes one event per span, one row per unit. Times are those of the machine's clock, in microseconds.
pub fn write(spans: &[TraceSpan], clock_hz: u64, out: &mut dyn Write) -> io::Result<()> {
    let microseconds = |cycles: u64| cycles as f64 * 1e6 / clock_hz as f64;
    let mut rows = BTreeMap::new();
    for span in spans {
        let next = rows.len() + 1;
        rows.entry(span.unit).or_insert(next);
    }
    out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    let mut separator = "\n";
    for (unit, row) in &rows {
        let event = json!({"ph": "M", "pid": 1, "tid": row, "name": "thread_name", "args": {"name": unit}});
        write!(out, "{separator}{event}")?;
        separator = ",\n";
    }
    for span in spans {
        let event = json!({
            "ph": "X", "pid": 1, "tid": rows.get(span.unit), "name": span.name,
            "ts": microseconds(span.start), "dur": microseconds(span.cycles),
            "args": {"start": span.start, "cycles": span.cycles},
        });
        write!(out, "{separator}{event}")?;
        separator = ",\n";
    }
    out.write_all(b"\n]}\n")
}
