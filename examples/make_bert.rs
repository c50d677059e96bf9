//! Writes a BERT encoder with random weights as an ONNX file, and inputs for it: something of full size to measure with.
//!
//! ```sh
//! cargo run --release --example make_bert -- target/bert-base
//! ```

use std::error::Error;
use std::path::PathBuf;

use tcc::tensors::write_npz;
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
    let inputs = [
        ("input_ids".to_owned(), Tensor::from_vec::<i64>(shape.clone(), ids)?),
        ("attention_mask".to_owned(), Tensor::from_vec(shape.clone(), vec![1i64; length])?),
        ("token_type_ids".to_owned(), Tensor::from_vec(shape, vec![0i64; length])?),
    ];
    write_npz(&folder.join("inputs.npz"), &inputs)?;
    println!("wrote {0}/model.onnx and {0}/inputs.npz", folder.display());
    Ok(())
}
