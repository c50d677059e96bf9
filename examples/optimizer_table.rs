//! Prints the table of `passes/OPTIMIZER.md`: for every model in a folder the cycles without search, with greedy and with
//! exact extraction, and what the kernels cost by reckoning against the proven lower bound.
//!
//! ```sh
//! cargo run --release --example optimizer_table -- tests/models systolic
//! ```

use std::error::Error;
use std::path::PathBuf;

use tcc::inputs::Inputs;
use tcc::onnx::import::ImportOptions;
use tcc::{Compiler, ImportedModel};
use tcc_targets::Optimization;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "tests/models".to_owned());
    let compiler = Compiler::for_target(&arguments.next().unwrap_or_else(|| "systolic".to_owned()))?;
    let mut models: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    models.sort();
    println!("| model | kernels | no search | greedy | exact | reckoned | bound | gap | blocks |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for path in models.into_iter().filter(|path| path.join("model.onnx").exists()) {
        let inputs = Inputs::read(&path.join("inputs_0.npz"))?;
        let options = ImportOptions { shapes: inputs.shapes([]), switches: inputs.switches([]), ..Default::default() };
        let model = ImportedModel::import(&path.join("model.onnx"), &options)?;
        let report =
            |optimization| Ok::<_, tcc::Error>(compiler.with_model(model.clone()).compile_with(optimization)?.report());
        let plain = report(Optimization::None)?;
        let greedy = report(Optimization::Greedy)?;
        let exact = report(Optimization::Exact)?;
        let cost: f64 = exact.optimizer.iter().map(|block| block.cost * block.repeats as f64).sum();
        let bound: f64 = exact.optimizer.iter().map(|block| block.bound.unwrap_or(0.0) * block.repeats as f64).sum();
        println!(
            "| {} | {} | {} | {} | {} | {cost} | {bound} | {:.1} % | {} |",
            path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default(),
            exact.kernels.len(),
            plain.cycles,
            greedy.cycles,
            exact.cycles,
            100.0 * (cost / bound.max(1.0) - 1.0),
            exact.optimizer.len(),
        );
    }
    Ok(())
}
