//! A model is untrusted input. Small models of one operator each are changed in one place at a time, an attribute, an
//! element of a constant or a dimension, to a value that no exporter writes. Whatever it is, import, clean-up, evaluation
//! and compilation must give a result or an error, within seconds and without much memory.
//!
//! The seeds are the fixtures of `com.microsoft` and, where they are present, ONNX's node tests. Only every n-th change is
//! tried, so that the test stays short. `TCC_HOSTILE=all` tries all of them, and `TCC_HOSTILE=NAME` those of the seeds whose
//! names contain `NAME`; both print each change before it is tried, so that the last line names one that ends the process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "Tests fail by panicking.")]

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_shape_proto::Dimension;
use onnx_protobuf::tensor_shape_proto::dimension::Value as Extent;
use onnx_protobuf::{GraphProto, Message, ModelProto, NodeProto, TensorProto};
use tcc::onnx::external::ExternalFiles;
use tcc::onnx::import::{ImportOptions, import_model};
use tcc::onnx::tensor::{Weights, read};
use tcc::tensors::read_npz;
use tcc_ir::{Data, Graph, Tensor, evaluate};
use tcc_targets::{Kind, Machine, Optimization, Target};

/// What integers become.
const INTS: [i64; 10] = [0, -1, 1, 3, i64::MIN, i64::MAX, i32::MIN as i64, 1 << 31, 1 << 40, 1 << 62];

/// What floats become.
const FLOATS: [f64; 8] = [0.0, -1.0, 1e-30, 1e9, 3e38, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

/// Elements of a constant that are changed, at most.
const ELEMENTS: usize = 12;

/// Inputs of integers with at most this many elements become constants: shapes, axes, repeats and indices.
const SMALL: usize = 64;

/// Longest time that one change may take. The work is far less; what remains is a slow machine.
const LONGEST: Duration = Duration::from_secs(8);

/// Most address space that one change may take.
const MOST_BYTES: u64 = 1 << 30;

/// Graphs that take more bytes, or more arithmetic, are valid, but too large to evaluate in a test.
const EVALUATED_BYTES: u64 = 16 << 20;
const EVALUATED_WORK: u64 = 50_000_000;

/// Graphs that take more bytes must be refused by a machine at once.
const ABSURD_BYTES: u64 = 1 << 41;

/// A model, and values of its inputs.
struct Seed {
    name: String,
    model: ModelProto,
    inputs: BTreeMap<String, Tensor>,
}

/// Counts places that can be changed, and changes the one it was asked for.
struct Mutator {
    /// Changes to pass over before the one that is made.
    left: usize,
    /// The change that was made.
    made: Option<String>,
}

impl Mutator {
    /// Offers `count` changes. Gives the number of the one that is to be made, if it is one of them.
    fn choose(&mut self, count: usize) -> Option<usize> {
        if self.made.is_some() {
            return None;
        }
        if self.left < count {
            return Some(self.left);
        }
        self.left -= count;
        None
    }

    fn number<T: Copy + PartialEq + std::fmt::Debug>(&mut self, what: &str, values: &[T], number: &mut T) {
        if let Some(choice) = self.choose(values.len()) {
            self.made = Some(format!("{what}: {number:?} becomes {:?}", values[choice]));
            *number = values[choice];
        }
    }

    fn list<T: Copy + PartialEq + std::fmt::Debug>(&mut self, what: &str, values: &[T], list: &mut Vec<T>) {
        for (index, number) in list.iter_mut().enumerate().take(ELEMENTS) {
            self.number(&format!("{what}[{index}]"), values, number);
        }
        match self.choose(3) {
            Some(0) => {
                self.made = Some(format!("{what} becomes empty"));
                list.clear();
            }
            Some(1) => {
                self.made = Some(format!("{what} becomes one longer"));
                list.push(list.last().copied().unwrap_or(values[2]));
            }
            Some(_) => {
                self.made = Some(format!("{what} becomes one shorter"));
                list.pop();
            }
            None => {}
        }
    }

    fn tensor(&mut self, what: &str, tensor: &mut TensorProto) {
        // Values are read from one field, whichever exporters wrote.
        let Ok(value) = read(&mut tensor.clone(), &mut ExternalFiles::none(), Weights::Load) else { return };
        let count = value.shape().count();
        if let Ok(Some(integers)) = value.to_i64s() {
            let wide = matches!(tensor.data_type, 7 | 13);
            let limited = |number: i64| if wide { number } else { number.clamp(-(1 << 31), (1 << 31) - 1) };
            let hostile: Vec<i64> = INTS.iter().map(|&number| limited(number)).collect();
            let mut changed = integers.clone();
            for (index, number) in changed.iter_mut().enumerate().take(ELEMENTS) {
                self.number(&format!("{what}[{index}]"), &hostile, number);
            }
            if changed != integers {
                write(tensor, &changed);
            }
            // All at once, too: limits on single numbers do not limit their products.
            if let Some(choice) = self.choose(if count > 1 { hostile.len() } else { 0 }) {
                self.made = Some(format!("{what}: all become {}", hostile[choice]));
                write(tensor, &vec![hostile[choice]; count]);
            }
        } else if tensor.data_type == 1 && count <= SMALL {
            let floats = value.to_f64s().unwrap();
            let mut changed = floats.clone();
            for (index, number) in changed.iter_mut().enumerate().take(ELEMENTS / 2) {
                self.number(&format!("{what}[{index}]"), &FLOATS, number);
            }
            if self.made.is_some() {
                tensor.float_data.clear();
                tensor.raw_data = changed.iter().flat_map(|&number| (number as f32).to_le_bytes()).collect();
            }
        }
        // A list of another length, whose values are the first ones or repeat the last one.
        if count > SMALL || value.shape().rank() != 1 {
            return;
        }
        let bytes = value.bytes().unwrap().to_vec();
        let size = bytes.len() / count.max(1);
        let changed = match self.choose(3) {
            Some(0) => (0, Vec::new()),
            Some(1) => (count + 1, [&bytes[..], &bytes[bytes.len().saturating_sub(size)..]].concat()),
            Some(_) => (count.saturating_sub(1), bytes[..bytes.len().saturating_sub(size)].to_vec()),
            None => return,
        };
        self.made = Some(format!("{what} becomes a list of {}", changed.0));
        let (name, kind) = (tensor.name.clone(), tensor.data_type);
        *tensor = TensorProto {
            name,
            data_type: kind,
            dims: vec![changed.0 as i64],
            raw_data: changed.1,
            ..Default::default()
        };
    }

    fn node(&mut self, node: &mut NodeProto) {
        let place = format!("node `{}` ({})", node.name, node.op_type);
        for attribute in &mut node.attribute {
            let what = format!("{place}, attribute `{}`", attribute.name);
            match attribute.type_.enum_value() {
                Ok(AttributeType::INT) => self.number(&what, &INTS, &mut attribute.i),
                Ok(AttributeType::INTS) => self.list(&what, &INTS, &mut attribute.ints),
                Ok(AttributeType::FLOAT) => self.number(&what, &FLOATS.map(|value| value as f32), &mut attribute.f),
                Ok(AttributeType::FLOATS) => {
                    self.list(&what, &FLOATS.map(|value| value as f32), &mut attribute.floats);
                }
                Ok(AttributeType::STRING) if self.choose(1).is_some() => {
                    self.made = Some(format!("{what} becomes empty"));
                    attribute.s.clear();
                }
                Ok(AttributeType::STRINGS) => match self.choose(2) {
                    Some(0) => {
                        self.made = Some(format!("{what} becomes empty"));
                        attribute.strings.clear();
                    }
                    Some(_) => {
                        self.made = Some(format!("{what} becomes one longer"));
                        attribute.strings.push(attribute.strings.last().cloned().unwrap_or_default());
                    }
                    None => {}
                },
                Ok(AttributeType::TENSOR) => {
                    if let Some(tensor) = attribute.t.as_mut() {
                        self.tensor(&what, tensor);
                    }
                }
                Ok(AttributeType::GRAPH) => {
                    if let Some(body) = attribute.g.as_mut() {
                        self.graph(body);
                    }
                }
                _ => {}
            }
        }
        if let Some(index) = self.choose(node.attribute.len()) {
            self.made = Some(format!("{place}: attribute `{}` is left out", node.attribute[index].name));
            node.attribute.remove(index);
        }
        if let Some(index) = self.choose(node.input.len()) {
            self.made = Some(format!("{place}: input {index} is left out"));
            node.input[index].clear();
        }
    }

    fn graph(&mut self, graph: &mut GraphProto) {
        for node in &mut graph.node {
            self.node(node);
        }
        for tensor in &mut graph.initializer {
            let what = format!("constant `{}`", tensor.name);
            self.tensor(&what, tensor);
        }
        for input in &mut graph.input {
            let what = format!("input `{}`", input.name);
            let Some(ty) = input.type_.as_mut().filter(|ty| ty.has_tensor_type()) else { continue };
            let Some(shape) = ty.mut_tensor_type().shape.as_mut() else { continue };
            for (axis, dim) in shape.dim.iter_mut().enumerate() {
                if let Some(Extent::DimValue(extent)) = &mut dim.value {
                    self.number(&format!("{what}, dimension {axis}"), &INTS, extent);
                }
            }
            match self.choose(3) {
                Some(0) => {
                    self.made = Some(format!("{what} becomes a scalar"));
                    shape.dim.clear();
                }
                Some(1) => {
                    self.made = Some(format!("{what} gets one more dimension"));
                    shape.dim.push(Dimension { value: Some(Extent::DimValue(2)), ..Default::default() });
                }
                Some(_) => {
                    self.made = Some(format!("{what} loses a dimension"));
                    shape.dim.pop();
                }
                None => {}
            }
        }
    }

    /// Changes a model. Without a change of that number, gives how many there are.
    fn apply(number: usize, model: &mut ModelProto) -> Result<String, usize> {
        let mut mutator = Mutator { left: number, made: None };
        for function in &mut model.functions {
            for node in &mut function.node {
                mutator.node(node);
            }
        }
        if let Some(graph) = model.graph.as_mut() {
            mutator.graph(graph);
        }
        mutator.made.ok_or(number - mutator.left)
    }
}

/// Replaces the elements of a tensor of integers.
fn write(tensor: &mut TensorProto, values: &[i64]) {
    let width = match tensor.data_type {
        2 | 3 | 9 => 1,
        4 | 5 => 2,
        6 | 12 => 4,
        7 | 13 => 8,
        _ => return,
    };
    tensor.int32_data.clear();
    tensor.int64_data.clear();
    tensor.uint64_data.clear();
    tensor.raw_data = values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(width)).collect();
}

/// A seed whose small inputs of integers, and of a few floats, are constants, and whose dimensions are all declared.
fn seed(name: String, mut model: ModelProto, inputs: BTreeMap<String, Tensor>) -> Option<Seed> {
    let graph = model.graph.as_mut()?;
    let mut kept = Vec::new();
    for mut input in std::mem::take(&mut graph.input) {
        let Some(tensor) = inputs.get(&input.name) else {
            kept.push(input);
            continue;
        };
        let ty = input.type_.mut_or_insert_default().mut_tensor_type();
        let count = tensor.shape().count();
        let floats = tensor.dtype().is_float();
        let list = tensor.shape().rank() <= 1 && !kept.is_empty();
        if (!floats && count <= SMALL) || (floats && list && count <= 8) {
            graph.initializer.push(TensorProto {
                name: input.name.clone(),
                data_type: ty.elem_type,
                dims: tensor.shape().iter().map(|&dim| dim as i64).collect(),
                raw_data: tensor.bytes().ok()?.to_vec(),
                ..Default::default()
            });
            continue;
        }
        let dim = |&dim: &usize| Dimension { value: Some(Extent::DimValue(dim as i64)), ..Default::default() };
        ty.shape.mut_or_insert_default().dim = tensor.shape().iter().map(dim).collect();
        kept.push(input);
    }
    graph.input = kept;
    Some(Seed { name, model, inputs })
}

fn fixtures() -> Vec<Seed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/microsoft_ops");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    paths.sort();
    let seed = |path: &PathBuf| {
        let model = ModelProto::parse_from_bytes(&fs::read(path).unwrap()).unwrap();
        let named = read_npz(&path.with_extension("npz")).unwrap();
        let inputs = named.into_iter().map(|named| (named.name, named.tensor)).collect();
        seed(path.file_stem().unwrap().to_string_lossy().into_owned(), model, inputs)
    };
    paths.iter().filter_map(seed).collect()
}

/// The node tests of ONNX, as `onnx_node_tests.rs` finds them.
fn node_tests() -> Vec<Seed> {
    let folder = std::env::var_os("TCC_ONNX_NODE_TESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/onnx-node-tests"), PathBuf::from);
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("{} is not there; only the fixtures of com.microsoft are tried", folder.display());
        return Vec::new();
    };
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let seed = |case: &PathBuf| {
        let model = ModelProto::parse_from_bytes(&fs::read(case.join("model.onnx")).ok()?).ok()?;
        let mut inputs = BTreeMap::new();
        for (index, input) in model.graph.input.iter().enumerate() {
            let bytes = fs::read(case.join("test_data_set_0").join(format!("input_{index}.pb"))).ok()?;
            let mut proto = TensorProto::parse_from_bytes(&bytes).ok()?;
            inputs.insert(input.name.clone(), read(&mut proto, &mut ExternalFiles::none(), Weights::Load).ok()?);
        }
        seed(case.file_name()?.to_string_lossy().into_owned(), model, inputs)
    };
    cases.iter().filter_map(seed).collect()
}

/// How much there is to do for a graph.
enum Size {
    /// Little enough to be evaluated in a test.
    Small,
    /// Valid, but more than a test has time for.
    Large,
    /// More than any machine has memory for.
    Absurd,
}

fn size(graph: &Graph) -> Size {
    let bytes = graph.values().fold(0u64, |sum, (_, value)| sum.saturating_add(value.ty.bytes() as u64));
    let work = graph.work();
    if bytes > ABSURD_BYTES {
        Size::Absurd
    } else if bytes <= EVALUATED_BYTES && work.macs.saturating_add(work.scalar_ops) <= EVALUATED_WORK {
        Size::Small
    } else {
        Size::Large
    }
}

/// Everything that is done with a model, with errors as the only other outcome. Says how far it came.
fn run(model: ModelProto, inputs: &BTreeMap<String, Tensor>, target: Option<&dyn Target>) -> &'static str {
    let Ok(graph) = import_model(model, ExternalFiles::none(), &ImportOptions::default()) else { return "refused" };
    let graph = tcc_passes::clean_up(&graph);
    match (size(&graph), target) {
        (Size::Small, _) => {}
        (Size::Absurd, Some(target)) => {
            return target.compile(&graph, Optimization::default()).map_or("not compiled", |_| "compiled");
        }
        (Size::Large, _) | (Size::Absurd, None) => return "too large to evaluate",
    }
    let input = |&id: &tcc_ir::ValueId| match inputs.get(&*graph.value(id).name) {
        Some(tensor) if tensor.ty() == graph.ty(id) => tensor.clone(),
        _ => Tensor::new(graph.ty(id).clone(), Data::from_bytes(vec![0; graph.ty(id).bytes()])).unwrap(),
    };
    let inputs: Vec<Tensor> = graph.inputs().iter().map(input).collect();
    let evaluated = evaluate(&graph, &inputs).map_err(|error| error.to_string());
    if let Err(error) = &evaluated {
        assert!(!error.contains("defect in tcc"), "{error}");
    }
    match target.map(|target| target.compile(&graph, Optimization::default())) {
        None if evaluated.is_ok() => "evaluated",
        None => "not evaluated",
        Some(Ok(_)) => "compiled",
        Some(Err(_)) => "not compiled",
    }
}

/// Address space that the process has ever had. Nothing where the system does not say.
fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// Where the last panic was, on whatever thread.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// What is told about the changes as they are tried.
enum Event {
    Begins(String),
    Fails(String),
}

/// Tries all changes of which the number, counted over all seeds, is a multiple of `every`.
fn try_all(seeds: &[Seed], every: usize, events: &Sender<Event>) -> BTreeMap<&'static str, usize> {
    let machine = Machine::default_of(Kind::Systolic).unwrap();
    let target = tcc_targets::target(machine.unwrap()).unwrap();
    let mut outcomes: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut total = 0;
    for seed in seeds {
        let count = Mutator::apply(usize::MAX, &mut seed.model.clone()).unwrap_err();
        for number in (0..count).filter(|number| (total + number) % every == 0) {
            let mut model = seed.model.clone();
            let change = format!("{}: {}", seed.name, Mutator::apply(number, &mut model).unwrap());
            events.send(Event::Begins(change.clone())).unwrap();
            let target = (number / every).is_multiple_of(5).then_some(&*target);
            let (before, start) = (peak_bytes(), Instant::now());
            let result = catch_unwind(AssertUnwindSafe(|| run(model, &seed.inputs, target)));
            let took = start.elapsed();
            let grown = peak_bytes().zip(before).map_or(0, |(after, before)| after - before);
            if result.is_err() {
                let place = PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone();
                events.send(Event::Fails(format!("{place} panics for {change}"))).unwrap();
            } else if took > LONGEST {
                events.send(Event::Fails(format!("it takes {took:?} for {change}"))).unwrap();
            } else if grown > MOST_BYTES {
                events.send(Event::Fails(format!("it takes {grown} bytes for {change}"))).unwrap();
            }
            *outcomes.entry(result.unwrap_or("panicked")).or_default() += 1;
        }
        total += count;
    }
    outcomes
}

/// Follows the changes, and gives up on one that seems to take for ever.
fn watch(events: &Receiver<Event>, verbose: bool) -> Vec<String> {
    let mut failures = Vec::new();
    let mut current = String::new();
    loop {
        match events.recv_timeout(4 * LONGEST) {
            Ok(Event::Begins(change)) => {
                if verbose {
                    eprintln!("{change}");
                }
                current = change;
            }
            Ok(Event::Fails(failure)) => {
                if verbose {
                    eprintln!("FAILS: {failure}");
                }
                failures.push(failure);
            }
            Err(RecvTimeoutError::Timeout) => {
                failures.push(format!("it takes for ever for {current}"));
                return failures;
            }
            Err(RecvTimeoutError::Disconnected) => return failures,
        }
    }
}

#[test]
fn hostile_values_give_errors() {
    let filter = std::env::var("TCC_HOSTILE").ok();
    let mut groups = [(fixtures(), 13), (node_tests(), 61)];
    if let Some(filter) = &filter {
        for (seeds, every) in &mut groups {
            seeds.retain(|seed| filter == "all" || seed.name.contains(filter));
            *every = 1;
        }
    }
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let message = payload.downcast_ref::<&str>().map(ToString::to_string);
        let message = message.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = format!("{place}: {message}");
    }));
    let (sender, receiver) = channel();
    let worker = std::thread::spawn(move || {
        let mut outcomes = BTreeMap::new();
        for (seeds, every) in groups {
            for (outcome, count) in try_all(&seeds, every, &sender) {
                *outcomes.entry(outcome).or_insert(0) += count;
            }
        }
        outcomes
    });
    let failures = watch(&receiver, filter.is_some());
    std::panic::set_hook(default_hook);
    assert!(failures.is_empty(), "{} changes:\n{}", failures.len(), failures.join("\n"));
    let outcomes: BTreeMap<&str, usize> = worker.join().unwrap();
    println!("{outcomes:?}");
    if filter.is_none() {
        assert!(outcomes.values().sum::<usize>() > 500, "hardly anything was tried");
        for outcome in ["refused", "evaluated", "compiled"] {
            assert!(outcomes.contains_key(outcome), "nothing was {outcome}");
        }
    }
}
