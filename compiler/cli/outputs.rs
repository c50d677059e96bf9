//! Outputs of a model: a summary to look at.

use tcc::tensors::NamedTensor;
use tcc_ir::{Tensor, Values};

use super::failure::Failure;
use super::page::{Cell, Page, Section};
use super::units;

/// How many elements are shown of each output.
const SHOWN: usize = 4;

/// Summarises outputs.
pub fn page(outputs: &[NamedTensor]) -> Result<Page, Failure> {
    let rows = outputs.iter().map(|output| row(&output.name, &output.tensor)).collect::<Result<Vec<_>, _>>();
    let section = Section {
        title: String::new(),
        head: vec!["output", "type", "min", "max", "mean", "first elements"],
        rows: rows.map_err(Failure::fault)?,
    };
    Ok(Page { title: String::new(), sections: vec![section] })
}

fn row(name: &str, tensor: &Tensor) -> Result<Vec<Cell>, tcc_ir::AbsentData> {
    let is_float = matches!(tensor.widen()?, Values::F32(_) | Values::F64(_));
    let show = |value: f64| if is_float { units::number(value) } else { value.to_string() };
    let values = tensor.to_f64s()?;
    let range = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).map_or_else(|| "-".to_owned(), show);
    let mean = if values.is_empty() { f64::NAN } else { values.iter().sum::<f64>() / values.len() as f64 };
    let mut first: Vec<String> = values.iter().take(SHOWN).map(|&value| show(value)).collect();
    if values.len() > SHOWN {
        first.push("…".to_owned());
    }
    Ok(vec![
        Cell::text(name),
        Cell::text(tensor.ty().to_string()),
        Cell::Number(range(f64::min)),
        Cell::Number(range(f64::max)),
        Cell::Number(if values.is_empty() { "-".to_owned() } else { units::number(mean) }),
        Cell::text(first.join(" ")),
    ])
}
