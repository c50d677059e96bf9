//! Tensors in all their encodings, and data outside the model file.

use std::path::Path;

use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::{ModelProto, StringStringEntryProto, TensorProto};
use tcc_ir::DType;

use crate::onnx::error::ImportError;
use crate::onnx::external::{ExternalError, ExternalFiles};
use crate::onnx::import::{ImportOptions, import_model};
use crate::onnx::tensor::{self, WeightProblem, Weights};
use crate::onnx::testing::*;

fn read(proto: &TensorProto) -> Result<tcc_ir::Tensor, WeightProblem> {
    tensor::read(&mut proto.clone(), &mut ExternalFiles::none(), Weights::Load).map_err(|error| error.problem)
}

fn typed(data_type: i32, dims: &[i64], values: &[i32]) -> TensorProto {
    TensorProto { data_type, dims: dims.to_vec(), int32_data: values.to_vec(), ..Default::default() }
}

fn raw(data_type: i32, dims: &[i64], bytes: &[u8]) -> TensorProto {
    TensorProto { data_type, dims: dims.to_vec(), raw_data: bytes.to_vec(), ..Default::default() }
}

#[test]
fn small_types_are_stored_as_32_bit_integers() {
    let check = |data_type, dims: &[i64], stored: &[i32], dtype, expected: &[f64]| {
        let tensor = read(&typed(data_type, dims, stored)).unwrap();
        assert_eq!((tensor.dtype(), values(&tensor)), (dtype, expected.to_vec()));
    };
    check(2, &[2], &[0, 255], DType::U8, &[0.0, 255.0]);
    check(3, &[2], &[-128, 127], DType::I8, &[-128.0, 127.0]);
    check(4, &[1], &[65535], DType::U16, &[65535.0]);
    check(5, &[1], &[-32768], DType::I16, &[-32768.0]);
    check(6, &[], &[-7], DType::I32, &[-7.0]);
    check(9, &[2], &[1, 0], DType::Bool, &[1.0, 0.0]);
    check(10, &[2], &[0x3c00, 0xc000], DType::F16, &[1.0, -2.0]);
    check(16, &[2], &[0x3f80, 0xc000], DType::BF16, &[1.0, -2.0]);
    check(17, &[2], &[0x38, 0xb8], DType::F8E4M3, &[1.0, -1.0]);
    check(19, &[1], &[0x3c], DType::F8E5M2, &[1.0]);
    check(21, &[3], &[0x21, 0x0f], DType::U4, &[1.0, 2.0, 15.0]);
    check(22, &[3], &[0x21, 0x0f], DType::I4, &[1.0, 2.0, -1.0]);
}

#[test]
fn raw_bytes_are_moved() {
    let mut proto = raw(1, &[2], float_bytes(&[1.5, -2.0]).as_slice());
    let at = proto.raw_data.as_ptr();
    let tensor = tensor::read(&mut proto, &mut ExternalFiles::none(), Weights::Load).unwrap();
    assert_eq!(values(&tensor), [1.5, -2.0]);
    assert_eq!(tensor.bytes().unwrap().as_ptr(), at);
    assert_eq!(values(&read(&raw(22, &[3], &[0x8f, 0x01])).unwrap()), [-1.0, -8.0, 1.0]);
    assert_eq!(values(&read(&raw(9, &[2], &[7, 0])).unwrap()), [1.0, 0.0]);
}

fn float_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn damaged_tensors_are_errors() {
    assert_eq!(read(&raw(1, &[-1], &[0; 4])).unwrap_err(), WeightProblem::NegativeDim(-1));
    assert!(matches!(read(&raw(1, &[1 << 40, 2], &[0; 4])), Err(WeightProblem::Shape(_))));
    assert!(matches!(read(&raw(1, &[1 << 40], &[0; 4])), Err(WeightProblem::Size(_))));
    assert!(matches!(read(&raw(1, &[2], &[0; 7])), Err(WeightProblem::Size(_))));
    assert!(matches!(read(&typed(2, &[1 << 40], &[0])), Err(WeightProblem::Count { actual: 1, .. })));
    assert!(matches!(read(&typed(2, &[1], &[256])), Err(WeightProblem::Range { value: 256, .. })));
    for unsupported in [0, 8, 14, 15, 18, 20, 23, 99] {
        assert!(matches!(read(&typed(unsupported, &[1], &[0])), Err(WeightProblem::Unsupported(_))));
    }
}

fn external(entries: &[(&str, &str)]) -> ModelProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
        ..Default::default()
    };
    let tensor = TensorProto {
        name: "w".to_owned(),
        data_type: FLOAT,
        dims: vec![2],
        data_location: DataLocation::EXTERNAL.into(),
        external_data: entries.iter().map(entry).collect(),
        ..Default::default()
    };
    model(with_initializers(graph(&[], &[], &["w"]), &[tensor]))
}

/// A folder with a file of four floats next to (an imagined) `model.onnx`, and a secret beside the folder.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("model/sub")).unwrap();
    std::fs::write(folder.path().join("model/weights.bin"), float_bytes(&[1.0, 2.0, 3.0, 4.0])).unwrap();
    std::fs::write(folder.path().join("secret"), float_bytes(&[6.0, 6.0])).unwrap();
    folder
}

fn problem(folder: &Path, entries: &[(&str, &str)]) -> Result<Vec<f64>, WeightProblem> {
    match import_at(&folder.join("model/model.onnx"), external(entries)) {
        Ok(graph) => Ok(graph.as_constant(graph.outputs()[0].value).map(values).unwrap()),
        Err(ImportError::Weight(error)) => {
            assert_eq!(error.name, "w");
            Err(error.problem)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn external_data_is_mapped() {
    let folder = folder();
    let read = |entries: &[(&str, &str)]| problem(folder.path(), entries).unwrap();
    assert_eq!(read(&[("location", "weights.bin")]), [1.0, 2.0]);
    assert_eq!(read(&[("location", "./weights.bin"), ("offset", "8"), ("length", "8")]), [3.0, 4.0]);
}

#[test]
fn nothing_outside_the_folder_is_opened() {
    let folder = folder();
    let secret = folder.path().join("secret").display().to_string();
    for location in ["../secret", "sub/../../secret", secret.as_str(), "", "/etc/passwd", ".."] {
        let error = problem(folder.path(), &[("location", location)]).unwrap_err();
        assert_eq!(error, WeightProblem::External(ExternalError::Outside(location.to_owned())), "{location}");
    }
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_not_followed() {
    let folder = folder();
    let model = folder.path().join("model");
    std::os::unix::fs::symlink("../secret", model.join("link")).unwrap();
    std::os::unix::fs::symlink("..", model.join("up")).unwrap();
    std::os::unix::fs::symlink("weights.bin", model.join("inside")).unwrap();
    for location in ["link", "up/secret"] {
        let error = problem(folder.path(), &[("location", location)]).unwrap_err();
        assert_eq!(error, WeightProblem::External(ExternalError::Link(location.to_owned())));
    }
    assert_eq!(problem(folder.path(), &[("location", "inside")]), Ok(vec![1.0, 2.0]));
}

#[test]
fn wrong_places_in_files_are_errors() {
    let folder = folder();
    let read = |entries: &[(&str, &str)]| problem(folder.path(), entries).unwrap_err();
    let outside = read(&[("location", "weights.bin"), ("offset", "12")]);
    assert!(matches!(outside, WeightProblem::OutsideFile { .. }), "{outside}");
    let huge = read(&[("location", "weights.bin"), ("offset", "18446744073709551615")]);
    assert!(matches!(huge, WeightProblem::OutsideFile { .. }), "{huge}");
    let negative = read(&[("location", "weights.bin"), ("offset", "-8")]);
    assert!(matches!(negative, WeightProblem::Location { key: "offset", .. }), "{negative}");
    let length = read(&[("location", "weights.bin"), ("length", "4")]);
    assert!(matches!(length, WeightProblem::Location { key: "length", .. }), "{length}");
    let folder = read(&[("location", "sub")]);
    assert!(matches!(folder, WeightProblem::External(ExternalError::Read { .. })), "{folder}");
    let missing = read(&[("location", "gone.bin")]).to_string();
    assert!(missing.contains("gone.bin") && missing.contains("--no-weights"), "{missing}");
}

#[test]
fn weights_can_be_left_out() {
    let folder = folder();
    let path = folder.path().join("model/model.onnx");
    let mut missing = external(&[("location", "gone.bin")]);
    missing.graph.mut_or_insert_default().initializer[0].dims = vec![1 << 20, 1 << 10];
    missing.graph.mut_or_insert_default().initializer.push(ints_tensor("small", &[1], &[3]));
    let options = ImportOptions { weights: Weights::Absent, ..Default::default() };
    let graph = import_model(missing, ExternalFiles::next_to(&path), &options).unwrap();
    let constants: Vec<_> =
        graph.values().filter_map(|(id, _)| graph.as_constant(id)).map(|tensor| tensor.data().is_absent()).collect();
    assert_eq!(constants, [true, false]);
}
