//! What ends a command early: one message and an exit code.

use std::fmt;
use std::process::ExitCode;

use tcc::artifact::{BuildError, ReadError};
use tcc::inputs::InputError;
use tcc::onnx::error::ImportError;
use tcc::quantization::QuantizationError;
use tcc::target_name::TargetNameError;
use tcc::tensors::TensorFileError;
use tcc_ir::EvalError;
use tcc_targets::{MachineError, TargetError};

/// How a command ends, as `tcc --help` documents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The model or the program is at fault.
    Fault,
    /// Wrong usage.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Fault => 1,
            Exit::Usage => 2,
        })
    }
}

/// Why a command ends early.
#[derive(Debug)]
pub struct Failure {
    /// With which exit code.
    pub exit: Exit,
    message: String,
}

impl Failure {
    /// The model or program is at fault.
    pub fn fault(message: impl fmt::Display) -> Self {
        Failure { exit: Exit::Fault, message: message.to_string() }
    }

    /// The command line, or a file that it names beside the model, is at fault.
    pub fn usage(message: impl fmt::Display) -> Self {
        Failure { exit: Exit::Usage, message: message.to_string() }
    }
}

impl fmt::Display for Failure {
    // Names in a message come from files that are not trusted: they must not steer the terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
        self.message.trim_end().chars().map(clean).try_for_each(|c| write!(f, "{c}"))
    }
}

impl From<tcc::Error> for Failure {
    fn from(error: tcc::Error) -> Self {
        match error {
            tcc::Error::TargetName(error) => error.into(),
            tcc::Error::Import(error) => error.into(),
            tcc::Error::Quantization(error) => error.into(),
            tcc::Error::Target(error) => error.into(),
            tcc::Error::Build(error) => error.into(),
            tcc::Error::Read(error) => error.into(),
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Missing(_) | ImportError::Folder(_) | ImportError::Read { .. } | ImportError::Dims(_) => {
                Failure::usage(error)
            }
            _ => Failure::fault(error),
        }
    }
}

impl From<QuantizationError> for Failure {
    fn from(error: QuantizationError) -> Self {
        match error {
            QuantizationError::Input(_) | QuantizationError::Import { .. } | QuantizationError::OtherProducts(_) => {
                Failure::usage(error)
            }
            QuantizationError::Evaluation { .. } | QuantizationError::NoFloats(_) | QuantizationError::Graph(_) => {
                Failure::fault(error)
            }
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::CodePath(_) | BuildError::Report(_) => Failure::fault(error),
            _ => Failure::usage(error),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Missing(_) | ReadError::NotABuild(_) | ReadError::NoWeights(_) => Failure::usage(error),
            _ => Failure::fault(error),
        }
    }
}

macro_rules! failures {
    ($($error:ty => $exit:ident),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure::$exit(error)
            }
        })*
    };
}

failures! {
    TargetNameError => usage,
    MachineError => usage,
    InputError => usage,
    TensorFileError => usage,
    TargetError => fault,
    EvalError => fault,
}
