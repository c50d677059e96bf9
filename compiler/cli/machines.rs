//! `tcc machines`.

use tcc::target_name;
use tcc_targets::Machine;

use super::arguments::{Format, MachinesArguments};
use super::failure::{Exit, Failure};
use super::page::{Cell, Page, Section};
use super::{print, print_json, units};

/// Lists the built-in machines, or prints one.
pub fn run(arguments: &MachinesArguments) -> Result<Exit, Failure> {
    let Some(name) = &arguments.name else {
        let machines = Machine::built_in()?;
        return match arguments.format.format {
            Format::Text => print(&list(&machines).to_text()),
            Format::Json => print_json(&machines),
        };
    };
    let machine = target_name::resolve(name)?;
    match arguments.format.format {
        Format::Json => print_json(&machine),
        // The file itself, whose comments say where the figures come from. One of the user's own is at hand anyway.
        Format::Text => match Machine::built_in_text(&machine.name) {
            Some(text) => print(text),
            None => print(&machine.to_toml()?),
        },
    }
}

fn list(machines: &[Machine]) -> Page {
    let rows = machines.iter().map(|machine| {
        vec![
            Cell::text(&machine.name),
            Cell::text(machine.kind.name()),
            Cell::text(if machine.default { "default" } else { "" }),
            Cell::Number(units::hertz(machine.clock_hz)),
            Cell::text(&machine.description),
        ]
    });
    let head = vec!["machine", "kind", "", "clock", "what it is"];
    Page { title: String::new(), sections: vec![Section { title: String::new(), head, rows: rows.collect() }] }
}
