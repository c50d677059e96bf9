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
    if a[2] == "p" {
        println!("{}", s.plan(m.graph()).unwrap());
        return;
    }
    let t = std::time::Instant::now();
    let e = if a[2] == "o" { tcc_passes::Extraction::Exact { states: 100000 } } else { tcc_passes::Extraction::Greedy };
    let (p, o) = s.optimized_plan(m.graph(), e).unwrap();
    println!("{p}");
    println!(
        "{:?} nodes {} offers {} cost {} cert {:?} {:?} time {:?}",
        a[1],
        o.e_nodes,
        o.offers,
        o.cost,
        o.certificate,
        o.saturation,
        t.elapsed()
    );
    println!("kernels {}", p.kernels.len());
}
