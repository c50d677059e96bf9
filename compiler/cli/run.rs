//! `tcc run`.

use tcc::accuracy::{self, OutputCheck};
use tcc::inputs::Inputs;
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
        let checks = check(&artifact, &inputs, &results, &progress)?;
        failed = checks.iter().filter(|check| check.failure.is_some()).map(|check| check.name.clone()).collect();
        page.sections.push(section(&artifact, &checks));
    }
    drop(progress);
    print(&format!("{}\ncycles: {}\n", page.to_text(), simulation.cycles))?;
    if failed.is_empty() {
        return Ok(Exit::Done);
    }
    let names = failed.iter().map(|name| format!("`{}`", super::page::clean(name))).collect::<Vec<_>>().join(", ");
    eprint_line(&match artifact.quantization() {
        Some(_) => format!(
            "error: {names} differ from the reference evaluation of the model in floats by more than a quantised model may: less \
             than {} dB; --calibrate with inputs like these may help",
            artifact.tolerance().snr_db
        ),
        None => format!("error: {names} differ from the reference evaluation by more than the machine's tolerance"),
    });
    Ok(Exit::Fault)
}

fn check(
    artifact: &Artifact,
    inputs: &[Tensor],
    results: &[NamedTensor],
    progress: &Progress,
) -> Result<Vec<OutputCheck>, Failure> {
    progress.stage("reading the model");
    let (path, options) = artifact.reference()?;
    let model = ImportedModel::import(&path, &options)?;
    let expected = eval::evaluate(model.graph(), inputs, progress)?;
    let tolerance = artifact.tolerance();
    results
        .iter()
        .zip(&expected)
        .map(|(actual, expected)| {
            accuracy::compare(&actual.name, expected, &actual.tensor, &tolerance).map_err(Failure::fault)
        })
        .collect()
}

fn section(artifact: &Artifact, checks: &[OutputCheck]) -> Section {
    let rows = checks.iter().map(|check| {
        vec![
            Cell::text(&check.name),
            Cell::Number(units::number(check.max_error)),
            Cell::Number(units::number(check.max_relative)),
            Cell::Number(match check.snr_db {
                snr if snr.is_finite() => format!("{snr:.1}"),
                snr => snr.to_string(),
            }),
            Cell::text(check.failure.as_ref().map_or_else(|| "ok".to_owned(), |why| format!("FAILED: {why}"))),
        ]
    });
    Section {
        title: match artifact.quantization() {
            Some(_) => format!(
                "compared with the reference evaluation of the model before it was quantised; {} dB must be reached",
                artifact.tolerance().snr_db
            ),
            None => "compared with the reference evaluation".to_owned(),
        },
        head: vec!["output", "max error", "of max", "SNR dB", "verdict"],
        rows: rows.collect(),
    }
}
