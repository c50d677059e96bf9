//! Traces in Chrome's JSON format, which Perfetto opens: one track for each unit.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::digits::decimal;
use crate::target::TraceSpan;

const PICOSECONDS: u128 = 1_000_000_000_000;

/// Writes `spans` as a trace of the process `name`, on a machine with `clock_hz` cycles per second.
///
/// Tracks stand in the order in which their units first occur. Times are microseconds with as many decimals as it takes
/// to tell picoseconds, computed in integers, so that the text is the same everywhere.
pub fn write(out: &mut dyn Write, name: &str, clock_hz: u64, spans: &[TraceSpan]) -> io::Result<()> {
    // There may be hundreds of units.
    let mut tracks: HashMap<&str, usize> = HashMap::new();
    let mut units: Vec<&str> = Vec::new();
    for span in spans {
        tracks.entry(&span.unit).or_insert_with(|| {
            units.push(&span.unit);
            units.len()
        });
    }
    writeln!(out, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    write!(out, r#"{{"ph":"M","pid":1,"name":"process_name","args":{{"name":{}}}}}"#, quoted(name)?)?;
    for (track, unit) in (1..).zip(&units) {
        writeln!(out, ",")?;
        write!(out, r#"{{"ph":"M","pid":1,"tid":{track},"name":"thread_name","args":{{"name":{}}}}}"#, quoted(unit)?)?;
    }
    let mut line = String::new();
    // Most names occur again and again.
    let mut names: HashMap<&str, String> = HashMap::new();
    for span in spans {
        let name = match names.get(&*span.name) {
            Some(name) => name,
            None => names.entry(&span.name).or_insert(quoted(&span.name)?),
        };
        let track = tracks.get(&*span.unit).copied().unwrap_or_default();
        let start = picoseconds(span.start, clock_hz);
        // The end is converted, not the length, so that spans that follow each other do so in the trace.
        let length = picoseconds(span.start.saturating_add(span.cycles), clock_hz) - start;
        line.clear();
        line.push_str(",\n{\"ph\":\"X\",\"pid\":1,\"tid\":");
        decimal(&mut line, track as u64);
        line.push_str(",\"ts\":");
        microseconds(&mut line, start);
        line.push_str(",\"dur\":");
        microseconds(&mut line, length);
        line.push_str(",\"name\":");
        line.push_str(name);
        line.push_str(",\"args\":{\"cycle\":");
        decimal(&mut line, span.start);
        line.push_str(",\"cycles\":");
        decimal(&mut line, span.cycles);
        line.push_str("}}");
        out.write_all(line.as_bytes())?;
    }
    out.write_all(b"\n]}\n")
}

fn quoted(text: &str) -> io::Result<String> {
    serde_json::to_string(text).map_err(io::Error::other)
}

fn picoseconds(cycle: u64, clock_hz: u64) -> u128 {
    u128::from(cycle) * PICOSECONDS / u128::from(clock_hz.max(1))
}

/// Picoseconds as a decimal number of microseconds, without zeros at its end.
fn microseconds(out: &mut String, picoseconds: u128) {
    let Ok(picoseconds) = u64::try_from(picoseconds) else {
        let text = format!("{}.{:06}", picoseconds / 1_000_000, picoseconds % 1_000_000);
        out.push_str(text.trim_end_matches('0').trim_end_matches('.'));
        return;
    };
    decimal(out, picoseconds / 1_000_000);
    let mut rest = picoseconds % 1_000_000;
    if rest == 0 {
        return;
    }
    // A 1 in front keeps the zeros at the beginning, and becomes the point.
    rest += 1_000_000;
    while rest.is_multiple_of(10) {
        rest /= 10;
    }
    let at = out.len();
    decimal(out, rest);
    out.replace_range(at..=at, ".");
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;

    fn span(unit: &'static str, name: &str, start: u64, cycles: u64) -> TraceSpan {
        TraceSpan { unit: unit.into(), name: name.to_owned(), start, cycles }
    }

    fn text(clock_hz: u64, spans: &[TraceSpan]) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes, "a \"model\"", clock_hz, spans).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_trace_is_json_with_a_track_for_each_unit() {
        let spans = [span("load", "x\n", 0, 5), span("array", "y", 5, 128), span("load", "z", 5, 1)];
        let trace: serde_json::Value = serde_json::from_str(&text(1_000_000_000, &spans)).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        assert_eq!(events.len(), 1 + 2 + 3);
        assert_eq!(events[0]["args"]["name"], "a \"model\"");
        assert_eq!(events[2]["args"]["name"], "array");
        assert_eq!((&events[3]["tid"], &events[4]["tid"], &events[5]["tid"]), (&1.into(), &2.into(), &1.into()));
        assert_eq!(events[3]["name"], "x\n");
    }

    #[test]
    fn times_are_exact_decimals() {
        let microseconds = |picoseconds| {
            let mut text = String::new();
            super::microseconds(&mut text, picoseconds);
            text
        };
        assert_eq!(microseconds(picoseconds(5, 1_000_000_000)), "0.005");
        assert_eq!(microseconds(picoseconds(3_000_000, 1_000_000_000)), "3000");
        assert_eq!(microseconds(picoseconds(1, 3_000_000_000)), "0.000333");
        assert_eq!(microseconds(10_203_000), "10.203");
        assert_eq!(microseconds(picoseconds(u64::MAX, 1)), "18446744073709551615000000");
        assert_eq!(microseconds(u128::from(u64::MAX) + 1), "18446744073709.551616");
    }

    #[test]
    fn spans_that_follow_each_other_do_so_in_the_trace() {
        let text = text(3_000_000_000, &[span("load", "a", 0, 1), span("load", "b", 1, 1)]);
        assert!(
            text.contains(r#""ts":0,"dur":0.000333"#) && text.contains(r#""ts":0.000333,"dur":0.000333"#),
            "{text}"
        );
    }
}
