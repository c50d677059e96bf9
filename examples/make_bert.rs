//! Writes a BERT encoder with random weights as an ONNX file, and inputs for it: something of full size to measure with.
//!
//! ```sh
//! cargo run --release --example make_bert -- target/bert-base
//! ```

use std::error::Error;
use std::path::PathBuf;

use tcc::tensors::{NamedTensor, write_npz};
use tcc_ir::{Shape, Tensor};

#[path = "../benches/bert/mod.rs"]
mod bert;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: make_bert FOLDER [LENGTH]")?);
    let length: usize = std::env::args().nth(2).map_or(Ok(128), |length| length.parse())?;
    std::fs::create_dir_all(&folder)?;
    bert::Bert::BASE.write(1, length, &folder.join("model.onnx"))?;
    let shape = Shape::new([1, length])?;
    let ids = (0..length as i64).map(|position| 1000 + position * 37 % 20000).collect();
    let named = |name: &str, values: Vec<i64>| -> Result<NamedTensor, Box<dyn Error>> {
        Ok(NamedTensor { name: name.to_owned(), tensor: Tensor::from_vec(shape.clone(), values)? })
    };
    let inputs = [
        named("input_ids", ids)?,
        named("attention_mask", vec![1; length])?,
        named("token_type_ids", vec![0; length])?,
    ];
    write_npz(&folder.join("inputs.npz"), &inputs)?;
    println!("wrote {0}/model.onnx and {0}/inputs.npz", folder.display());
    Ok(())
}
