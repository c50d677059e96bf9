//! What can be asked on the command line.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::failure::Failure;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the model or the program is at fault: it cannot be compiled, it cannot run, or its outputs are wrong
  2  wrong usage: unknown arguments, targets or dimensions, inputs that do not fit, paths that cannot be read or written

Results go to standard output, messages to standard error. Progress is shown only on a terminal.";

/// Compiles ONNX transformer models to accelerators, and counts their cycles.
#[derive(Parser)]
#[command(name = "tcc", version, after_help = EXIT_CODES, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Compile a model for a target.
    Build(BuildArguments),
    /// Execute a built program on its target's simulator.
    Run(RunArguments),
    /// Evaluate a model without any target: the reference that programs are checked against.
    Eval(EvalArguments),
    /// Show a model's inputs, outputs, free dimensions, operators and parameters, and what is unsupported.
    Inspect(InspectArguments),
    /// Show the report of a build.
    Report(ReportArguments),
    /// Compile a model for several targets and put them in one table, the fastest first.
    Compare(CompareArguments),
    /// List the built-in machines, or print one's file.
    Machines(MachinesArguments),
    /// Print a completion script for a shell.
    Completions(CompletionsArguments),
}

#[derive(Args)]
pub struct BuildArguments {
    /// The model.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// A kind of machine, a machine's name (see `tcc machines`), or the path of a machine file.
    #[arg(long, value_name = "T", value_parser = NonEmptyStringValueParser::new())]
    pub target: String,
    /// The folder to write. An earlier build there is replaced; anything else is left alone.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    #[command(flatten)]
    pub shapes: Shapes,
    #[command(flatten)]
    pub quantization: QuantizationArguments,
    /// Compile without the values of the weights, which need not even be there. The program cannot be run then.
    #[arg(long, conflicts_with = "calibrate")]
    pub no_weights: bool,
    /// Do not rewrite or search: fuse in one walk.
    #[arg(long)]
    pub no_optimize: bool,
    /// Say which rewriting rules made each kernel out of which nodes of the model. Takes more time.
    #[arg(long)]
    pub explain: bool,
    #[command(flatten)]
    pub format: FormatArgument,
    #[command(flatten)]
    pub threads: Threads,
}

#[derive(Args)]
pub struct RunArguments {
    /// The folder that `tcc build` wrote.
    #[arg(value_name = "DIR")]
    pub build: PathBuf,
    #[command(flatten)]
    pub data: DataArguments,
    /// Compare the outputs with the reference evaluation of the model, and fail if they are too far off.
    #[arg(long)]
    pub check: bool,
    #[command(flatten)]
    pub threads: Threads,
}

#[derive(Args)]
pub struct EvalArguments {
    /// The model.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    #[command(flatten)]
    pub data: DataArguments,
    /// Bind a free dimension that no input decides.
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_dim)]
    pub dims: Vec<(String, usize)>,
    #[command(flatten)]
    pub threads: Threads,
}

#[derive(Args)]
pub struct InspectArguments {
    /// The model.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Show instead the kernels that it becomes for a target, without search and by the optimiser.
    #[arg(long)]
    pub plan: bool,
    /// The target of --plan, as `tcc build` takes it.
    #[arg(long, value_name = "T", default_value = "systolic", requires = "plan", value_parser = NonEmptyStringValueParser::new())]
    pub target: String,
    #[command(flatten)]
    pub shapes: Shapes,
    #[command(flatten)]
    pub quantization: QuantizationArguments,
    #[command(flatten)]
    pub format: FormatArgument,
    #[command(flatten)]
    pub threads: Threads,
}

#[derive(Args)]
pub struct ReportArguments {
    /// The folder that `tcc build` wrote.
    #[arg(value_name = "DIR")]
    pub build: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub format: ReportFormat,
}

#[derive(Args)]
pub struct CompareArguments {
    /// The model.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// A target as `tcc build` takes it; give several.
    #[arg(long = "target", value_name = "T", required = true, value_parser = NonEmptyStringValueParser::new())]
    pub targets: Vec<String>,
    #[command(flatten)]
    pub shapes: Shapes,
    #[command(flatten)]
    pub quantization: QuantizationArguments,
    #[command(flatten)]
    pub format: FormatArgument,
    #[command(flatten)]
    pub threads: Threads,
}

#[derive(Args)]
pub struct MachinesArguments {
    /// A machine, whose file is then printed.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub format: FormatArgument,
}

#[derive(Args)]
pub struct CompletionsArguments {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Numbers for the dimensions that a model leaves open.
#[derive(Args)]
pub struct Shapes {
    /// Bind a free dimension; `tcc inspect` shows their names.
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_dim)]
    pub dims: Vec<(String, usize)>,
    /// Take the shapes of the inputs from this file, or from a folder of input_*.pb.
    #[arg(long, value_name = "X.npz")]
    pub shapes_from: Option<PathBuf>,
}

/// Whether a model's products, or its weights alone, become integers.
#[derive(Args)]
pub struct QuantizationArguments {
    /// Quantise the model: int8 multiplies integers instead of floats, which float models need on machines whose arrays
    /// multiply nothing else; int4 stores weights in four bits, for machines that wait for them, and multiplies floats.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub quantize: Option<QuantizedType>,
    /// Inputs that show how large activations are, so that their scales are known beforehand: a file or folder as of
    /// `tcc run --input`, of any shapes; give several. Without, the scales of activations are found at run time. For int8
    /// alone: int4 quantises no activations.
    #[arg(long, value_name = "X.npz", requires = "quantize")]
    pub calibrate: Vec<PathBuf>,
}

/// What products multiply once the model is quantised.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuantizedType {
    /// 8-bit integers; weights have a scale for each channel.
    Int8,
    /// Floats, with weights that are 4-bit integers times a scale for each 32 of what is summed over (16 where 32 do not divide
    /// it).
    Int4,
}

/// Where inputs come from and outputs go.
#[derive(Args)]
pub struct DataArguments {
    /// The inputs: an .npz file with one array per input, or a folder of input_*.pb as ONNX's test cases have them.
    #[arg(long, value_name = "X.npz")]
    pub input: PathBuf,
    /// Write the outputs to this file.
    #[arg(long, value_name = "Y.npz")]
    pub output: Option<PathBuf>,
}

#[derive(Args)]
pub struct FormatArgument {
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Results for people or for programs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// [`Format`], and a page.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people.
    Text,
    /// For programs: the content of report.json.
    Json,
    /// A self-contained page.
    Html,
}

#[derive(Args)]
pub struct Threads {
    /// Number of threads; all processors if not given. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

impl Threads {
    /// Runs work on that many threads.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
        let Some(threads) = self.threads else { return work() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(usize::from(threads)).build();
        pool.map_err(|error| Failure::fault(format!("cannot start {threads} threads: {error}")))?.install(work)
    }
}

/// Reads `NAME=N`. Names may hold `=` themselves: the last one counts.
fn parse_dim(text: &str) -> Result<(String, usize), String> {
    let (name, extent) = text.rsplit_once('=').ok_or("expected NAME=N, as in --dim batch=1")?;
    if name.is_empty() {
        return Err("the name is missing; expected NAME=N, as in --dim batch=1".to_owned());
    }
    let extent =
        extent.parse().map_err(|_| format!("`{extent}` is not a number; expected NAME=N, as in --dim batch=1"))?;
    Ok((name.to_owned(), extent))
}
