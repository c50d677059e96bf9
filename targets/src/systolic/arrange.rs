//! Results of attentions, laid out as those who read them want them.
//!
//! An attention makes its result head by head, while the product that follows walks all heads of a position as one row. Where
//! that is but another order of the same elements, the attention's kernel writes them in it, so that the product finds its rows
//! in one piece.

use tcc_ir::{Access, Anchor, Plan, ValueId, View};

/// Lets every attention write its result in the order in which the first of its readers walks it.
pub(super) fn arrange(plan: &mut Plan) {
    let mut readers: Vec<Vec<ValueId>> = vec![Vec::new(); plan.graph.value_count()];
    let attends = |anchor: &Anchor| matches!(anchor, Anchor::Attention(_));
    let results: Vec<ValueId> = plan
        .kernels
        .iter()
        .filter(|kernel| attends(&kernel.anchor))
        .filter_map(|kernel| kernel.anchor.node())
        .map(|id| plan.graph.node(id).output())
        .filter(|&value| plan.access(value).root == value)
        .collect();
    let mut wanted = vec![false; plan.graph.value_count()];
    results.iter().for_each(|value| wanted[value.index()] = true);
    for kernel in &plan.kernels {
        // A copy reads by an access of its own.
        if let Anchor::Copy { source, .. } = &kernel.anchor {
            wanted[source.root.index()] = false;
        }
        for &input in kernel.nodes().flat_map(|id| &plan.graph.node(id).inputs) {
            let root = plan.access(input).root;
            if wanted[root.index()] && !readers[root.index()].contains(&input) {
                readers[root.index()].push(input);
            }
        }
    }
    let is_output = |plan: &Plan, value: ValueId| plan.graph.outputs().iter().any(|output| output.value == value);
    for value in results {
        let readers = &readers[value.index()];
        if wanted[value.index()]
            && !is_output(plan, value)
            && !readers.iter().any(|&reader| is_output(plan, reader))
            && let Some(accesses) = rearranged(plan, value, readers)
        {
            for (value, access) in accesses {
                plan.accesses[value.index()] = access;
            }
        }
    }
}

/// How a value and its readers find it where it lies as the first reader walks it; `None` if that is how it lies already, or if
/// some reader cannot find it there.
fn rearranged(plan: &Plan, value: ValueId, readers: &[ValueId]) -> Option<Vec<(ValueId, Access)>> {
    let first = *readers.first().filter(|&&first| first != value)?;
    let walked = &plan.access(first).view;
    if walked.is_dense() {
        return None;
    }
    let place = walked.inverse(plan.graph.shape(value).clone())?;
    let mut accesses = vec![(first, Access { root: first, view: View::dense(plan.graph.shape(first).clone()) })];
    for &reader in readers.iter().filter(|&&reader| reader != first && reader != value) {
        accesses.push((reader, Access { root: first, view: plan.access(reader).view.compose(&place)? }));
    }
    accesses.push((value, Access { root: first, view: place }));
    Some(accesses)
}
