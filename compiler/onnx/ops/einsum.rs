//! Einstein's summation, brought to permutations, products of matrices and sums.

use tcc_ir::{Shape, ValueId};
use tcc_ir::ops::{BinaryFn, ReduceFn, Slice};

use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[onnx("Einsum", einsum)];

/// Name of one index of an equation: a letter, or a place in the ellipsis counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// A value and what its axes are called.
#[derive(Clone, Debug)]
struct Term {
    value: ValueId,
    labels: Vec<Label>,
}

fn einsum(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let equation: String = cx.string("equation")?.unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
    let inputs = cx.all_inputs()?;
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let texts: Vec<&str> = left.split(',').collect();
    if texts.len() != inputs.len() {
        return Err(LowerError::invalid(format!(
            "equation `{equation}` has {} terms, but there are {} inputs",
            texts.len(),
            inputs.len()
        )));
    }
    let mut terms = Vec::with_capacity(inputs.len());
    let mut ellipsis = 0;
    for (text, &value) in texts.iter().zip(&inputs) {
        let letters = text.replace("...", "").chars().count();
        let wide = cx.rank(value).checked_sub(letters).filter(|&wide| wide == 0 || text.contains("..."));
        let wide = wide.ok_or_else(|| {
            LowerError::invalid(format!("term `{text}` of equation `{equation}` does not name the axes of {}", cx.ty(value)))
        })?;
        ellipsis = ellipsis.max(wide);
        terms.push(Term { value, labels: labels(text, wide)? });
    }
    let output = match right {
        Some(text) => labels(text, if text.contains("...") { ellipsis } else { 0 })?,
        None => implicit_output(&terms, ellipsis),
    };
    for (index, label) in output.iter().enumerate() {
        if output[..index].contains(label) || !terms.iter().any(|term| term.labels.contains(label)) {
            return Err(LowerError::invalid(format!("equation `{equation}` cannot have {label:?} there in its output")));
        }
    }
    for term in &mut terms {
        *term = diagonals(cx, term.clone())?;
    }
    let mut terms = std::collections::VecDeque::from(terms);
    let mut result = terms.pop_front().ok_or(LowerError::MissingInput(0))?;
    while let Some(next) = terms.pop_front() {
        let needed = |label: &Label| output.contains(label) || terms.iter().any(|term| term.labels.contains(label));
        let kept: Vec<Label> = result.labels.iter().chain(&next.labels).copied().filter(|label| needed(label)).collect();
        result = multiply(cx, result, next, &kept)?;
    }
    result = sum_out(cx, result, &output)?;
    let perm: Vec<usize> =
        output.iter().filter_map(|label| result.labels.iter().position(|own| own == label)).collect();
    Ok(vec![cx.transpose(result.value, &perm)?])
}

/// Reads one term; an ellipsis stands for `wide` axes.
fn labels(text: &str, wide: usize) -> Result<Vec<Label>, LowerError> {
    let letters = |text: &str| -> Result<Vec<Label>, LowerError> {
        text.chars()
            .map(|c| {
                if c.is_ascii_alphabetic() {
                    Ok(Label::Letter(c))
                } else {
                    Err(LowerError::invalid(format!("term `{text}` of the equation has `{c}` where a letter must be")))
                }
            })
            .collect()
    };
    let Some((before, after)) = text.split_once("...") else { return letters(text) };
    let mut all = letters(before)?;
    all.extend((0..wide).rev().map(Label::Ellipsis));
    all.extend(letters(after)?);
    Ok(all)
}

/// Without an arrow the output has the ellipsis, then in alphabetical order the letters that occur once.
fn implicit_output(terms: &[Term], ellipsis: usize) -> Vec<Label> {
    let all: Vec<Label> = terms.iter().flat_map(|term| &term.labels).copied().collect();
    let mut letters: Vec<Label> = all
        .iter()
        .copied()
        .filter(|label| matches!(label, Label::Letter(_)) && all.iter().filter(|other| *other == label).count() == 1)
        .collect();
    letters.sort_unstable();
    (0..ellipsis).rev().map(Label::Ellipsis).chain(letters).collect()
}

/// Takes the diagonal of axes with the same label, so that every label occurs once.
fn diagonals(cx: &mut NodeContext<'_>, mut term: Term) -> Result<Term, LowerError> {
    while let Some((first, second)) = repeated(&term.labels) {
        let dims = cx.shape(term.value).to_vec();
        let len = dims[first];
        if dims[second] != len {
            return Err(LowerError::invalid(format!("axes of extents {len} and {} have no diagonal", dims[second])));
        }
        let mut perm: Vec<usize> = (0..dims.len()).filter(|&axis| axis != first && axis != second).collect();
        let mut sizes: Vec<usize> = perm.iter().map(|&axis| dims[axis]).collect();
        let labels = perm.iter().map(|&axis| term.labels[axis]).chain([term.labels[first]]).collect();
        perm.extend([first, second]);
        let moved = cx.transpose(term.value, &perm)?;
        sizes.push(len * len);
        let flat = cx.reshape(moved, &sizes)?;
        let mut steps = vec![1; sizes.len()];
        if let (Some(size), Some(step)) = (sizes.last_mut(), steps.last_mut()) {
            (*size, *step) = (len, len as i64 + 1);
        }
        let value = cx.add(Slice { starts: vec![0; sizes.len()], steps, sizes }, &[flat])?;
        term = Term { value, labels };
    }
    Ok(term)
}

fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    labels.iter().enumerate().find_map(|(second, label)| {
        labels[..second].iter().position(|other| other == label).map(|first| (first, second))
    })
}

/// Sums over all axes whose labels are not in `kept`.
fn sum_out(cx: &mut NodeContext<'_>, term: Term, kept: &[Label]) -> Result<Term, LowerError> {
    let axes: Vec<usize> = (0..term.labels.len()).filter(|&axis| !kept.contains(&term.labels[axis])).collect();
    if axes.is_empty() {
        return Ok(term);
    }
    let value = cx.reduce(ReduceFn::Sum, term.value, &axes, false)?;
    Ok(Term { value, labels: term.labels.into_iter().filter(|label| kept.contains(label)).collect() })
}

/// The product of two terms, summed over the labels that are not in `kept`.
fn multiply(cx: &mut NodeContext<'_>, a: Term, b: Term, kept: &[Label]) -> Result<Term, LowerError> {
    // What only one side has and nobody needs is summed before multiplying.
    let wanted: Vec<Label> = kept.iter().chain(&b.labels).copied().collect();
    let a = sum_out(cx, a, &wanted)?;
    let wanted: Vec<Label> = kept.iter().chain(&a.labels).copied().collect();
    let b = sum_out(cx, b, &wanted)?;
    let shared = |label: &&Label| b.labels.contains(label);
    let batch: Vec<Label> = a.labels.iter().filter(shared).filter(|label| kept.contains(label)).copied().collect();
    let summed: Vec<Label> = a.labels.iter().filter(shared).filter(|label| !kept.contains(label)).copied().collect();
    let rows: Vec<Label> = a.labels.iter().filter(|label| !shared(label)).copied().collect();
    let columns: Vec<Label> = b.labels.iter().filter(|label| !a.labels.contains(label)).copied().collect();
    let labels: Vec<Label> = batch.iter().chain(&rows).chain(&columns).copied().collect();
    // An extent of 1 broadcasts; along summed axes it must be written out.
    let mut sums = Vec::with_capacity(summed.len());
    for label in &summed {
        let (left, right) = (extent(cx, &a, label), extent(cx, &b, label));
        if left != right && left != 1 && right != 1 {
            return Err(LowerError::invalid(format!("{label:?} has extent {left} in one term and {right} in another")));
        }
        sums.push(left.max(right));
    }
    let row_dims: Vec<usize> = rows.iter().map(|label| extent(cx, &a, label)).collect();
    let column_dims: Vec<usize> = columns.iter().map(|label| extent(cx, &b, label)).collect();
    // Each of the sums is an extent of one of two terms, so that together they may be more than either term has elements.
    let k = Shape::new(sums.iter().copied())?.count();
    let (m, n) = (row_dims.iter().product(), column_dims.iter().product());
    let left = write_out(cx, &a, &summed, &sums)?;
    let left = arrange(cx, left, &a.labels, [&batch, &rows, &summed], [m, k])?;
    let right = write_out(cx, &b, &summed, &sums)?;
    let right = arrange(cx, right, &b.labels, [&batch, &summed, &columns], [k, n])?;
    let dtype = cx.dtype(left);
    // Nothing is summed: an outer product, which is element-wise work.
    let product = if summed.is_empty() { cx.binary(BinaryFn::Mul, left, right)? } else { cx.mat_mul(left, right)? };
    let product = cx.cast(product, dtype)?;
    let lead = &cx.shape(product).dims()[..batch.len()];
    let dims: Vec<usize> = lead.iter().chain(&row_dims).chain(&column_dims).copied().collect();
    Ok(Term { value: cx.reshape(product, &dims)?, labels })
}

fn extent(cx: &NodeContext<'_>, term: &Term, label: &Label) -> usize {
    term.labels.iter().position(|own| own == label).map_or(1, |axis| cx.shape(term.value)[axis])
}

/// Repeats axes of extent 1 whose labels are summed over, to the extents they have in the other term.
fn write_out(cx: &mut NodeContext<'_>, term: &Term, summed: &[Label], sums: &[usize]) -> Result<ValueId, LowerError> {
    let mut dims = cx.shape(term.value).to_vec();
    for (dim, own) in dims.iter_mut().zip(&term.labels) {
        if let Some(place) = summed.iter().position(|label| label == own) {
            *dim = sums[place];
        }
    }
    cx.broadcast(term.value, &dims)
}

/// Brings axes called `labels` into the order of `groups`, and joins the last two groups into axes of extents `matrix`.
fn arrange(
    cx: &mut NodeContext<'_>,
    value: ValueId,
    labels: &[Label],
    groups: [&[Label]; 3],
    matrix: [usize; 2],
) -> Result<ValueId, LowerError> {
    let order = groups.into_iter().flatten();
    let perm: Vec<usize> = order.filter_map(|label| labels.iter().position(|own| own == label)).collect();
    let moved = cx.transpose(value, &perm)?;
    let mut dims = cx.shape(moved).to_vec();
    dims.truncate(groups[0].len());
    dims.extend(matrix);
    cx.reshape(moved, &dims)
}
