//! `tcc run`.

use tcc::accuracy::{self, OutputCheck};
use tcc::inputs::Inputs;
use tcc::quantization::Quantization;
use tcc::tensors::{NamedTensor, NpzFile};
use tcc::{Artifact, ImportedModel};
use tcc_ir::Tensor;

use super::arguments::RunArguments;
use super::failure::{Exit, Failure};
use super::page::{Cell, Section};
use super::progress::Progress;
use super::{eprint_line, eval, outputs, print, units};

/// Executes a built program.
pub fn run(arguments: &RunArguments) -> Result<Exit, Failure> {
    let progress = Progress::new();
    let output = arguments.data.output.as_deref().map(NpzFile::create).transpose()?;
    let artifact = Artifact::open(&arguments.build)?;
    let inputs = Inputs::read(&arguments.data.input)?.arrange(artifact.inputs())?;
    for (name, value) in artifact.switches() {
        let given = artifact.inputs().iter().zip(&inputs).find(|(port, _)| port.name == name);
        if given.is_some_and(|(_, tensor)| tensor.bytes().is_ok_and(|bytes| (bytes != [0]) != value)) {
            return Err(Failure::usage(format!(
                "the program was built for `{0}` = {value}, which chose a branch of the model, but the input file gives \
                 {1}; build it again with --shapes-from this file",
                super::page::clean(name),
                !value
            )));
        }
    }
    let program = artifact.program()?;
    progress.stage("executing the program");
    let simulation = program.simulate(&inputs)?;
    let names = artifact.outputs().iter().map(|port| port.name.clone());
    let results: Vec<NamedTensor> =
        names.zip(simulation.outputs).map(|(name, tensor)| NamedTensor { name, tensor }).collect();
    if let Some(file) = output {
        file.write(&results)?;
    }
    let mut page = outputs::page(&results)?;
    let mut failed = Vec::new();
    if arguments.check {
        let Checks { reference, floats } = check(&artifact, &inputs, &results, &progress)?;
        failed = reference.iter().filter(|check| check.failure.is_some()).map(|check| check.name.clone()).collect();
        page.sections.push(section(&artifact, &reference));
        page.sections.extend(floats.map(|checks| distance(&checks)));
    }
    drop(progress);
    print(&format!("{}\ncycles: {}\n", page.to_text(), simulation.cycles))?;
    if failed.is_empty() {
        return Ok(Exit::Done);
    }
    let names = failed.iter().map(|name| format!("`{}`", super::page::clean(name))).collect::<Vec<_>>().join(", ");
    eprint_line(&match artifact.quantization() {
        Some(Quantization::Products(_)) => format!(
            "error: {names} differ from the reference evaluation of the model in floats by more than a quantised model may: less \
             than {} dB; --calibrate with inputs like these may help",
            artifact.tolerance().snr_db
        ),
        Some(Quantization::Weights(_)) | None => {
            format!("error: {names} differ from the reference evaluation by more than the machine's tolerance")
        }
    });
    Ok(Exit::Fault)
}

/// What outputs were compared with.
struct Checks {
    /// With what they must be near to.
    reference: Vec<OutputCheck>,
    /// With the model in floats, from which it is only told how far they are.
    floats: Option<Vec<OutputCheck>>,
}

fn check(
    artifact: &Artifact,
    inputs: &[Tensor],
    results: &[NamedTensor],
    progress: &Progress,
) -> Result<Checks, Failure> {
    progress.stage("reading the model");
    let (path, options) = artifact.reference()?;
    let given = ImportedModel::import(&path, &options)?;
    let tolerance = artifact.tolerance();
    let compared = |model: &ImportedModel| -> Result<Vec<OutputCheck>, Failure> {
        let expected = eval::evaluate(model.graph(), inputs, progress)?;
        let pairs = results.iter().zip(&expected);
        let compare = |(actual, expected): (&NamedTensor, &Tensor)| {
            accuracy::compare(&actual.name, expected, &actual.tensor, &tolerance).map_err(Failure::fault)
        };
        pairs.map(compare).collect()
    };
    match artifact.quantization() {
        Some(Quantization::Weights(_)) => {
            let reference = compared(&given.with_weights_of_four_bits()?)?;
            Ok(Checks { reference, floats: Some(compared(&given)?) })
        }
        Some(Quantization::Products(_)) | None => Ok(Checks { reference: compared(&given)?, floats: None }),
    }
}

/// A signal-to-noise ratio in decibels.
fn decibels(snr: f64) -> String {
    if snr.is_finite() { format!("{snr:.1}") } else { snr.to_string() }
}

/// How far outputs are from those of the model in floats.
fn distance(checks: &[OutputCheck]) -> Section {
    let row = |check: &OutputCheck| vec![Cell::text(&check.name), Cell::Number(decibels(check.snr_db))];
    Section {
        title: "what weights of four bits cost: compared with the model in floats".to_owned(),
        head: vec!["output", "SNR dB"],
        rows: checks.iter().map(row).collect(),
    }
}

fn section(artifact: &Artifact, checks: &[OutputCheck]) -> Section {
    let rows = checks.iter().map(|check| {
        vec![
            Cell::text(&check.name),
            Cell::Number(units::number(check.max_error)),
            Cell::Number(units::number(check.max_relative)),
            Cell::Number(decibels(check.snr_db)),
            Cell::text(check.failure.as_ref().map_or_else(|| "ok".to_owned(), |why| format!("FAILED: {why}"))),
        ]
    });
    Section {
        title: match artifact.quantization() {
            Some(Quantization::Products(_)) => format!(
                "compared with the reference evaluation of the model before it was quantised; {} dB must be reached",
                artifact.tolerance().snr_db
            ),
            Some(Quantization::Weights(_)) => {
                "compared with the reference evaluation of the model with the same weights of four bits".to_owned()
            }
            None => "compared with the reference evaluation".to_owned(),
        },
        head: vec!["output", "max error", "of max", "SNR dB", "verdict"],
        rows: rows.collect(),
    }
}
