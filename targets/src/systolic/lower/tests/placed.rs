//! Results of the graph that are views: kernels write where they lie.

use super::grouped::{check, default_machine, inputs, machine, parse, plan, run};

#[test]
fn kernels_of_every_kind_write_rearranged() {
    let machines = [default_machine(), machine(16, 64 << 10, 64)];
    // The work on two inputs, and how many kernels it is.
    for (work, kernels) in [
        ("%5: f32[6,20] = mat_mul(%0, %1)", 1),
        ("%4: f32[6,20] = exp(%2) %3: f32[6,20] = mat_mul(%0, %1) %5: f32[6,20] = add(%3, %4)", 2),
        ("%3: f32[6,20] = neg(%2) %5: f32[6,20] = add(%3, %2)", 2),
        ("%3: f32[6,1] = reduce[function=\"sum\",axes=[1]](%2) %5: f32[6,20] = sub(%2, %3)", 2),
        ("%5: f32[6,20] = concat[axis=1](%7, %8)", 1),
        ("%5: f32[6,20] = pad[low=[0,1],high=[0,-1],interior=[0,0]](%2, %6)", 1),
        ("%5: f32[6,20] = gather[axis=0](%2, %9)", 1),
        ("%5: f32[6,20] = cum_sum[axis=1,exclusive=false,reverse=true](%2)", 1),
        ("%5: f32[6,20] = softmax[axis=1](%2)", 6),
    ] {
        for (shape, view) in [
            ("20,6", "transpose[perm=[1,0]](%5)"),
            ("4,6,5", "transpose[perm=[1,0,2]](%10)"),
            ("5,4,6", "transpose[perm=[2,1,0]](%10)"),
            ("120", "reshape[shape=[120]](%5)"),
        ] {
            let source = number(&format!(
                r#"graph "placed" {{
                    input %0 "a": f32[6,8]
                    input %1 "b": f32[8,20]
                    input %2 "c": f32[6,20]
                    input %7 "d": f32[6,7]
                    input %8 "e": f32[6,13]
                    const %6: f32[] = [2.5]
                    const %9: i64[6] = [5,0,1,1,2,0]
                    {work}
                    %10: f32[6,4,5] = reshape[shape=[6,4,5]](%5)
                    %11: f32[{shape}] = {view}
                    output "y" = %11
                }}"#
            ));
            for machine in &machines {
                check(&source, machine, kernels, 1e-5);
            }
        }
    }
}

/// The same text with values numbered in the order in which they are defined.
fn number(source: &str) -> String {
    let mut known: Vec<String> = Vec::new();
    let words = |source: &str| -> Vec<(bool, String)> {
        let mut words = Vec::new();
        let mut rest = source;
        while let Some(at) = rest.find('%') {
            words.push((false, rest[..at].to_owned()));
            let end = rest[at + 1..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| at + 1 + end);
            words.push((true, rest[at + 1..end].to_owned()));
            rest = &rest[end..];
        }
        words.push((false, rest.to_owned()));
        words
    };
    for (is_value, word) in words(source) {
        if is_value && !known.contains(&word) {
            known.push(word);
        }
    }
    let place = |word: &String| known.iter().position(|each| each == word).unwrap();
    words(source)
        .into_iter()
        .map(|(is_value, word)| if is_value { format!("%{}", place(&word)) } else { word })
        .collect()
}

#[test]
fn others_read_what_lies_in_a_result() {
    // Keys in heads, as attention caches want them: the result holds them, and the product after reads them there.
    let source = r#"graph "keys" {
        input %0 "x": f32[12,16]
        input %1 "w": f32[16,24]
        input %2 "q": f32[3,12,8]
        %3: f32[12,24] = mat_mul(%0, %1)
        %4: f32[12,3,8] = reshape[shape=[12,3,8]](%3)
        %5: f32[3,12,8] = transpose[perm=[1,0,2]](%4)
        %6: f32[3,12,12] = mat_mul[transpose_b=true](%2, %5)
        %7: f32[12,24] = exp(%3)
        %8: f32[4,24] = slice[starts=[2,0],steps=[2,1],sizes=[4,24]](%3)
        %9: f32[4,24] = neg(%8)
        output "keys" = %5
        output "scores" = %6
        output "other" = %7
        output "some" = %9
    }"#;
    let graph = parse(source);
    let plan = plan(&graph);
    assert!(plan.kernels.iter().all(|kernel| kernel.anchor.kind() != "copy"), "{plan}");
    run(plan, &default_machine(), &inputs(&graph)).unwrap().check(2e-2, source);
}

#[test]
fn only_one_result_holds_a_value() {
    let source = r#"graph "twice" {
        input %0 "x": f32[6,8]
        input %1 "w": f32[8,10]
        %2: f32[6,10] = mat_mul(%0, %1)
        %3: f32[10,6] = transpose[perm=[1,0]](%2)
        %4: f32[60] = reshape[shape=[60]](%2)
        %5: f32[5,6] = slice[starts=[0,0],steps=[2,1],sizes=[5,6]](%3)
        output "turned" = %3
        output "flat" = %4
        output "part" = %5
    }"#;
    check(source, &default_machine(), 3, 1e-5);
    // A value that is a result itself stays where it is.
    let source = r#"graph "itself" {
        input %0 "x": f32[6,8]
        %1: f32[6,8] = neg(%0)
        %2: f32[8,6] = transpose[perm=[1,0]](%1)
        output "turned" = %2
        output "plain" = %1
    }"#;
    check(source, &default_machine(), 2, 0.0);
}

#[test]
fn what_others_read_in_runs_is_not_taken_apart() {
    let source = r#"graph "runs" {
        input %0 "x": f32[64,48]
        input %1 "w": f32[48,8]
        %2: f32[64,48] = neg(%0)
        %3: f32[48,64] = transpose[perm=[1,0]](%2)
        %4: f32[64,8] = mat_mul(%2, %1)
        output "turned" = %3
        output "y" = %4
    }"#;
    check(source, &default_machine(), 3, 1e-5);
}
