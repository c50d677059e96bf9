use std::path::Path;
use tcc::inputs::Inputs;
use tcc::onnx::import::ImportOptions;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let mut o = ImportOptions::default();
    let d = Path::new(&a[1]);
    let i = Inputs::read(&d.join("inputs_0.npz")).unwrap();
    o.shapes = i.shapes(std::iter::empty::<&str>());
    o.switches = i.switches(std::iter::empty::<&str>());
    let m = tcc::ImportedModel::import(&d.join("model.onnx"), &o).unwrap();
    if a[2] == "g" {
        println!("{}", tcc_ir::text::print(m.graph(), tcc_ir::text::PrintOptions::default()));
        return;
    }
    let machine = tcc_targets::Machine::built_in().unwrap().into_iter().find(|m| m.default).unwrap();
    let s = tcc_targets::systolic::Systolic::new(machine).unwrap();
    let t = std::time::Instant::now();
    use tcc_targets::{Optimization as O, Target};
    let e = match &a[2][..] {
        "p" => O::None,
        "o" => O::Exact,
        _ => O::Greedy,
    };
    let p = s.plan(m.graph(), e).unwrap();
    println!("{p}");
    println!("kernels {} time {:?}", p.kernels.len(), t.elapsed());
    let t = std::time::Instant::now();
    let r = s.compile(m.graph(), e).unwrap().report();
    println!("cycles {} time {:?}", r.cycles, t.elapsed());
    for b in r.optimizer {
        println!("{b:?}");
    }
}
