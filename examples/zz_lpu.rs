fn main() {
    let mut args = std::env::args().skip(1);
    let machine = args.next().unwrap();
    for d in args {
        let p = std::path::Path::new(&d);
        let name = p.file_name().unwrap().to_string_lossy().to_string();
        if let Ok(dims) = std::env::var("DIMS") {
            let dims = dims.split(',').map(|d| { let (a, b) = d.split_once('=').unwrap(); (a.to_string(), b.parse().unwrap()) }).collect();
            let options = tcc::onnx::import::ImportOptions { dims, weights: tcc::onnx::tensor::Weights::Absent, ..Default::default() };
            let model = tcc::ImportedModel::import(&p.join("model.onnx"), &options).unwrap();
            let graph = tcc_passes::clean_up(model.graph());
            println!("{:?}", tcc_targets::lpu::compile::try_graph(&graph, &[], &machine).map(|_| ()));
            continue;
        }
        let load = || -> Result<_, Box<dyn std::error::Error>> {
            let inputs = tcc::inputs::Inputs::read(&p.join("inputs_0.npz"))?;
            let options = tcc::onnx::import::ImportOptions { shapes: inputs.shapes([]), switches: inputs.switches([]), ..Default::default() };
            let model = tcc::ImportedModel::import(&p.join("model.onnx"), &options)?;
            let graph = tcc_passes::clean_up(model.graph());
            let ports: Vec<_> = graph.inputs().iter().map(|&i| (graph.value(i).name.to_string(), graph.ty(i).clone())).collect();
            let tensors = inputs.arrange(&tcc::inputs::ports(&graph))?; drop(ports);
            Ok((graph, tensors))
        };
        let (graph, tensors) = match load() { Ok(x) => x, Err(e) => { println!("{name}: LOAD {e}"); continue } };
        let expected = tcc_ir::evaluate(&graph, &tensors).unwrap();
        let r = std::panic::catch_unwind(|| tcc_targets::lpu::compile::try_graph(&graph, &tensors, &machine));
        match r {
            Err(_) => println!("{name}: PANIC"),
            Ok(Err(e)) => println!("{name}: ERROR {e}"),
            Ok(Ok((outputs, cycles))) => {
                let mut worst = f64::INFINITY;
                for (o, e) in outputs.iter().zip(&expected) {
                    let (a, b) = (o.to_f64s().unwrap(), e.to_f64s().unwrap());
                    let s: f64 = b.iter().map(|x| x * x).sum();
                    let n: f64 = a.iter().zip(&b).map(|(x, y)| if x == y { 0.0 } else { (x - y) * (x - y) }).sum();
                    let snr = if n == 0.0 { 999.0 } else { 10.0 * (s / n).log10() };
                    worst = if snr.is_nan() { snr } else { worst.min(snr) };
                }
                println!("{name}: {cycles} cycles, SNR {worst:.1}");
            }
        }
    }
}
