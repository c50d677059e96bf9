//! What a run takes in energy: counts of what is done times what the machine file says that each takes.

use super::machine::{EnergyCosts, LpuMachine};
use super::simulator::Counts;
use crate::report::{Energy, EnergyPart};

/// Joules in a picojoule.
const PICO: f64 = 1e-12;

/// The energy of one run of so many cycles, at so many a second, by the costs of the machine called `name`.
pub(super) fn estimate(
    name: &str,
    counts: &Counts,
    costs: &EnergyCosts,
    machine: &LpuMachine,
    cycles: u64,
    clock_hz: u64,
) -> Energy {
    let part = |name: &str, count: u64, picojoules_each: f64| EnergyPart {
        name: name.to_owned(),
        count,
        picojoules_each,
        joules: count as f64 * picojoules_each * PICO,
    };
    let lanes = machine.vector() as u64;
    let parts = vec![
        part("multiply-accumulates of bytes", counts.byte_macs, costs.byte_mac),
        part("multiply-accumulates of halves", counts.half_macs, costs.half_mac),
        part("vectors read", counts.reads, costs.read),
        part("vectors written", counts.writes, costs.write),
        part("vectors moved by a position", counts.hops, costs.hop),
        part("ALU operations of a lane", counts.computed.saturating_mul(lanes), costs.alu),
        part("vectors switched", counts.switched, costs.switched),
        part("weight vectors loaded", counts.weights, costs.weights),
        part("cycles of static power", cycles, costs.static_watts / PICO / clock_hz.max(1) as f64),
    ];
    Energy {
        joules: parts.iter().map(|part| part.joules).sum(),
        parts,
        basis: format!(
            "an estimate from the counts of one run and the energies in the machine file of {name}, which says where they \
             come from; instruction fetch, the host and links are not in it"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lpu::machine::tests::{energy_costs, small_machine};

    #[test]
    fn energy_is_counts_times_costs() {
        let counts =
            Counts { reads: 3, writes: 2, hops: 5, weights: 1, byte_macs: 7, half_macs: 11, computed: 4, switched: 6 };
        let energy = estimate("small", &counts, &energy_costs(), &small_machine(), 10, 1_000_000_000);
        // A quarter of a watt for 10 nanoseconds is 2500 picojoules.
        let picojoules = [7.0, 22.0, 30.0, 40.0, 15.0, 4.0 * 8.0 * 0.5, 180.0, 40.0, 2500.0];
        for (part, expected) in energy.parts.iter().zip(picojoules) {
            assert!((part.joules / PICO - expected).abs() < 1e-9, "{part:?}");
        }
        assert_eq!(energy.parts.len(), picojoules.len());
        assert!((energy.joules / PICO - picojoules.iter().sum::<f64>()).abs() < 1e-9);
    }
}
