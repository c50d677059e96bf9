//! A BERT encoder of any size as an ONNX model, with seeded random weights: what the benchmarks and the example
//! `make_bert` measure with.

use std::path::Path;

use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_shape_proto::Dimension;
use onnx_protobuf::tensor_shape_proto::dimension::Value as DimValue;
use onnx_protobuf::type_proto::{Tensor as TensorTypeProto, Value as TypeValue};
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// The extents of an encoder.
#[derive(Clone, Copy, Debug)]
pub struct Bert {
    /// Encoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Longest sequence.
    pub positions: usize,
}

impl Bert {
    /// bert-base-uncased.
    pub const BASE: Bert =
        Bert { layers: 12, hidden: 768, heads: 12, intermediate: 3072, vocabulary: 30522, positions: 512 };

    /// This encoder as a model for `batch` sequences of `length` tokens.
    pub fn model(&self, batch: usize, length: usize) -> ModelProto {
        let mut builder = Builder { graph: GraphProto::new(), seed: 0x243F_6A88_85A3_08D3, length };
        builder.graph.name = format!("bert-{}x{}", self.layers, self.hidden);
        for name in ["input_ids", "attention_mask", "token_type_ids"] {
            builder.graph.input.push(port(name, INT64, &[batch, length]));
        }
        let mut x = self.embeddings(&mut builder);
        let mask = self.mask(&mut builder, batch);
        for layer in 0..self.layers {
            x = self.layer(&mut builder, layer, &x, &mask, batch);
        }
        builder.node("Identity", "/output", &[&x], "last_hidden_state", &[]);
        builder.graph.output.push(port("last_hidden_state", FLOAT, &[batch, length, self.hidden]));
        let mut model = ModelProto::new();
        model.ir_version = 8;
        model.producer_name = "tcc-benches".to_owned();
        let mut opset = OperatorSetIdProto::new();
        opset.version = 17;
        model.opset_import.push(opset);
        model.graph = Some(builder.graph).into();
        model
    }

    /// Writes [`Bert::model`] to a file.
    pub fn write(&self, batch: usize, length: usize, path: &Path) -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        self.model(batch, length).write_to_writer(&mut file).map_err(std::io::Error::other)
    }

    fn embeddings(&self, b: &mut Builder) -> String {
        let words = b.weight("embeddings.word", &[self.vocabulary, self.hidden]);
        let types = b.weight("embeddings.type", &[2, self.hidden]);
        let positions = b.weight("embeddings.position", &[self.positions, self.hidden]);
        let word = b.node("Gather", "/embeddings/word", &[&words, "input_ids"], "", &[]);
        let kind = b.node("Gather", "/embeddings/type", &[&types, "token_type_ids"], "", &[]);
        let zero = b.ints("embeddings.start", &[0]);
        let end = b.ints("embeddings.end", &[b.length as i64]);
        let position = b.node("Slice", "/embeddings/position", &[&positions, &zero, &end, &zero], "", &[]);
        let sum = b.node("Add", "/embeddings/Add", &[&word, &kind], "", &[]);
        let sum = b.node("Add", "/embeddings/Add_1", &[&sum, &position], "", &[]);
        b.layer_norm("/embeddings/LayerNorm", &sum, self.hidden)
    }

    /// 0 where a token may be attended to, a large negative number where not.
    fn mask(&self, b: &mut Builder, batch: usize) -> String {
        let shape = b.ints("mask.shape", &[batch as i64, 1, 1, b.length as i64]);
        let wide = b.node("Reshape", "/mask/Reshape", &["attention_mask", &shape], "", &[]);
        let float = b.node("Cast", "/mask/Cast", &[&wide], "", &[("to", i64::from(FLOAT))]);
        let one = b.scalar("mask.one", 1.0);
        let inverted = b.node("Sub", "/mask/Sub", &[&one, &float], "", &[]);
        let low = b.scalar("mask.low", -10000.0);
        b.node("Mul", "/mask/Mul", &[&inverted, &low], "", &[])
    }

    fn layer(&self, b: &mut Builder, layer: usize, x: &str, mask: &str, batch: usize) -> String {
        let at = |part: &str| format!("/layer.{layer}/{part}");
        let head = self.hidden / self.heads;
        let split = b.ints(&at("split"), &[batch as i64, b.length as i64, self.heads as i64, head as i64]);
        let mut heads = Vec::new();
        for (name, perm) in [("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])] {
            let y = b.linear(&at(name), x, self.hidden, self.hidden);
            let y = b.node("Reshape", &at(&format!("{name}/Reshape")), &[&y, &split], "", &[]);
            heads.push(b.transpose(&at(&format!("{name}/Transpose")), &y, &perm));
        }
        let scores = b.node("MatMul", &at("attention/MatMul"), &[&heads[0], &heads[1]], "", &[]);
        let root = b.scalar(&at("attention.scale"), (head as f32).sqrt());
        let scores = b.node("Div", &at("attention/Div"), &[&scores, &root], "", &[]);
        let scores = b.node("Add", &at("attention/Add"), &[&scores, mask], "", &[]);
        let weights = b.node("Softmax", &at("attention/Softmax"), &[&scores], "", &[("axis", -1)]);
        let context = b.node("MatMul", &at("attention/MatMul_1"), &[&weights, &heads[2]], "", &[]);
        let context = b.transpose(&at("attention/Transpose"), &context, &[0, 2, 1, 3]);
        let merged = b.ints(&at("merged"), &[batch as i64, b.length as i64, self.hidden as i64]);
        let context = b.node("Reshape", &at("attention/Reshape"), &[&context, &merged], "", &[]);
        let y = b.linear(&at("output"), &context, self.hidden, self.hidden);
        let y = b.node("Add", &at("residual/Add"), &[&y, x], "", &[]);
        let x = b.layer_norm(&at("LayerNorm"), &y, self.hidden);
        let y = b.linear(&at("intermediate"), &x, self.hidden, self.intermediate);
        let y = b.gelu(&at("gelu"), &y);
        let y = b.linear(&at("dense"), &y, self.intermediate, self.hidden);
        let y = b.node("Add", &at("residual/Add_1"), &[&y, &x], "", &[]);
        b.layer_norm(&at("LayerNorm_1"), &y, self.hidden)
    }
}

struct Builder {
    graph: GraphProto,
    seed: u64,
    length: usize,
}

impl Builder {
    /// Adds a node with integer attributes; its output is called `output`, or after the node if that is empty.
    fn node(&mut self, op: &str, name: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]) -> String {
        let output = if output.is_empty() { format!("{name}_output_0") } else { output.to_owned() };
        let mut node = NodeProto::new();
        node.op_type = op.to_owned();
        node.name = name.to_owned();
        node.input = inputs.iter().map(|&input| input.to_owned()).collect();
        node.output.push(output.clone());
        for &(key, value) in attributes {
            let mut attribute = AttributeProto::new();
            attribute.name = key.to_owned();
            attribute.type_ = AttributeType::INT.into();
            attribute.i = value;
            node.attribute.push(attribute);
        }
        self.graph.node.push(node);
        output
    }

    fn transpose(&mut self, name: &str, x: &str, perm: &[i64]) -> String {
        let output = self.node("Transpose", name, &[x], "", &[]);
        let mut attribute = AttributeProto::new();
        attribute.name = "perm".to_owned();
        attribute.type_ = AttributeType::INTS.into();
        attribute.ints = perm.to_vec();
        if let Some(node) = self.graph.node.last_mut() {
            node.attribute.push(attribute);
        }
        output
    }

    fn linear(&mut self, name: &str, x: &str, from: usize, to: usize) -> String {
        let weight = self.weight(&format!("{name}.weight"), &[from, to]);
        let bias = self.weight(&format!("{name}.bias"), &[to]);
        let y = self.node("MatMul", &format!("{name}/MatMul"), &[x, &weight], "", &[]);
        self.node("Add", &format!("{name}/Add"), &[&bias, &y], "", &[])
    }

    fn layer_norm(&mut self, name: &str, x: &str, width: usize) -> String {
        let scale = self.tensor(&format!("{name}.weight"), &[width], vec![1.0; width]);
        let bias = self.weight(&format!("{name}.bias"), &[width]);
        self.node("LayerNormalization", name, &[x, &scale, &bias], "", &[("axis", -1)])
    }

    fn gelu(&mut self, name: &str, x: &str) -> String {
        let root = self.scalar(&format!("{name}.root"), std::f32::consts::SQRT_2);
        let (one, half) = (self.scalar(&format!("{name}.one"), 1.0), self.scalar(&format!("{name}.half"), 0.5));
        let y = self.node("Div", &format!("{name}/Div"), &[x, &root], "", &[]);
        let y = self.node("Erf", &format!("{name}/Erf"), &[&y], "", &[]);
        let y = self.node("Add", &format!("{name}/Add"), &[&y, &one], "", &[]);
        let y = self.node("Mul", &format!("{name}/Mul"), &[x, &y], "", &[]);
        self.node("Mul", &format!("{name}/Mul_1"), &[&y, &half], "", &[])
    }

    fn scalar(&mut self, name: &str, value: f32) -> String {
        self.tensor(name, &[], vec![value])
    }

    fn ints(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, INT64, &[values.len()], bytes)
    }

    /// Random weights of standard deviation 0.02: sums of four uniform numbers, from a linear congruential generator.
    fn weight(&mut self, name: &str, dims: &[usize]) -> String {
        let mut seed = self.seed;
        let mut uniform = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let count = dims.iter().product();
        let deviation = 0.02 / (4.0f32 / 12.0).sqrt();
        let values = (0..count).map(|_| (uniform() + uniform() + uniform() + uniform()) * deviation).collect();
        self.seed = seed;
        self.tensor(name, dims, values)
    }

    fn tensor(&mut self, name: &str, dims: &[usize], values: Vec<f32>) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, FLOAT, dims, bytes)
    }

    fn initializer(&mut self, name: &str, data_type: i32, dims: &[usize], bytes: Vec<u8>) -> String {
        let mut tensor = TensorProto::new();
        tensor.name = name.to_owned();
        tensor.data_type = data_type;
        tensor.dims = dims.iter().map(|&dim| dim as i64).collect();
        tensor.raw_data = bytes;
        self.graph.initializer.push(tensor);
        name.to_owned()
    }
}

fn port(name: &str, elem_type: i32, dims: &[usize]) -> ValueInfoProto {
    let mut shape = TensorShapeProto::new();
    for &extent in dims {
        let mut dim = Dimension::new();
        dim.value = Some(DimValue::DimValue(extent as i64));
        shape.dim.push(dim);
    }
    let mut tensor = TensorTypeProto::new();
    tensor.elem_type = elem_type;
    tensor.shape = Some(shape).into();
    let mut ty = TypeProto::new();
    ty.value = Some(TypeValue::TensorType(tensor));
    let mut info = ValueInfoProto::new();
    info.name = name.to_owned();
    info.type_ = Some(ty).into();
    info
}
