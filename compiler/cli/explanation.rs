//! `tcc build --explain`: why the kernels are what they are, as a person reads it.

use tcc_passes::{KernelExplanation, Rewriting};
use tcc_targets::Explanation;
use tcc_targets::explanation::ExplainedKernel;

use super::page::{Cell, Section};

/// Lays out an explanation: a summary, then a section for each distinct kernel.
pub fn sections(explanation: &Explanation) -> Vec<Section> {
    let Explanation { plan_taken, explanations } = explanation;
    let summary = Section::lines("explanation", [plan_taken.to_string()]);
    let kernels = explanations.iter().flat_map(|found| kernel(found, plan_taken.is_searched()));
    [summary].into_iter().chain(kernels).collect()
}

fn kernel(kernel: &ExplainedKernel, searched: bool) -> Vec<Section> {
    let ExplainedKernel { outline, explanation: KernelExplanation { rules, rewritings, symbols }, block_name } = kernel;
    let first = outline.kernels.first().cloned().unwrap_or_default();
    let title = match outline.kernels.len() {
        0 | 1 => first.clone(),
        count => format!("{first}, {count} times"),
    };
    let uses = |uses: usize| if uses == 1 { String::new() } else { format!(" ×{uses}") };
    let told = match rules.as_slice() {
        [] => "none: these nodes are computed as they are".to_owned(),
        rules => {
            let rules = rules.iter().map(|used| format!("{}{}", used.rule, uses(used.uses)));
            rules.collect::<Vec<_>>().join(", ")
        }
    };
    let mut facts = vec![
        vec![Cell::text("block"), Cell::text(block_name.as_deref().unwrap_or("none: a view is written out"))],
        vec![Cell::text("operators"), Cell::text(outline.operators.join(" "))],
    ];
    if outline.kernels.len() > 1 {
        facts.push(vec![Cell::text("kernels"), Cell::text(outline.kernels.join(", "))]);
    }
    for (index, node) in outline.nodes.iter().enumerate() {
        facts.push(vec![Cell::text(if index == 0 { "nodes" } else { "" }), Cell::text(node)]);
    }
    if searched {
        facts.push(vec![Cell::text("rules"), Cell::text(told)]);
    }
    for symbol in symbols {
        let name = if symbol.name.is_empty() { "a constant that a rule made" } else { &symbol.name };
        facts.push(vec![Cell::text(&symbol.symbol), Cell::text(format!("{name}: {}", symbol.ty))]);
    }
    let rewritings = rewritings.iter().map(|found| rewriting(format!("{first}: {}", found.value), found));
    [Section { title, head: Vec::new(), rows: facts }].into_iter().chain(rewritings).collect()
}

fn rewriting(title: String, rewriting: &Rewriting) -> Section {
    let Rewriting { before, after, steps, .. } = rewriting;
    let row = |what: &str, term: &str| vec![Cell::text(what), Cell::text(term)];
    let mut rows = vec![row("in the model", before)];
    rows.extend(steps.iter().map(|step| {
        let rule = if step.reversed { format!("{}, reversed", step.rule) } else { step.rule.clone() };
        // What rewrites the whole term in one step is told by what stands around it.
        let whole = steps.len() == 1 && (&step.before, &step.after) == (before, after);
        row(&format!("  {rule}"), &if whole { String::new() } else { format!("{} → {}", step.before, step.after) })
    }));
    rows.push(row("in the plan", after));
    Section { title, head: Vec::new(), rows }
}
