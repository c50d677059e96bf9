//! Files that are not models.

use std::path::Path;

use onnx_protobuf::Message as _;
use proptest::prelude::*;

use crate::onnx::error::ImportError;
use crate::onnx::import::{ImportOptions, import, import_bytes};
use crate::onnx::testing::{self, *};

fn import_file(path: &Path) -> Result<tcc_ir::Graph, ImportError> {
    import(path, &ImportOptions::default())
}

fn small_model() -> Vec<u8> {
    let nodes = [node("Add", &["a", "w"], &["b"], &[]), node("Abs", &["b"], &["c"], &[])];
    let constants = [floats_tensor("w", &[2], &[1.0, 2.0])];
    testing::model(with_initializers(graph(&[input("a", FLOAT, &["2"])], &nodes, &["c"]), &constants))
        .write_to_bytes()
        .unwrap()
}

#[test]
fn each_kind_of_wrong_file_has_its_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    assert!(matches!(import_file(&path), Err(ImportError::Missing(_))));
    assert!(matches!(import_file(folder.path()), Err(ImportError::Folder(_))));
    let with = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        import_file(&path).unwrap_err()
    };
    assert!(matches!(with(b""), ImportError::Empty(_)));
    assert!(matches!(with(b"version https://git-lfs.github.com/spec/v1\n"), ImportError::LfsPointer(_)));
    assert!(matches!(with(b"<!DOCTYPE html><html></html>"), ImportError::Wire { .. }));
    // ir_version alone.
    assert!(matches!(with(&[8, 8]), ImportError::NoGraph(_)));
    let whole = small_model();
    let cut = with(&whole[..whole.len() - 10]);
    assert!(matches!(cut, ImportError::Wire { .. }), "{cut}");
    assert!(cut.to_string().contains("model.onnx") && cut.to_string().contains("at byte"), "{cut}");
    std::fs::write(&path, whole).unwrap();
    assert!(import_file(&path).is_ok());
}

#[cfg(unix)]
#[test]
fn a_device_is_not_read() {
    assert!(matches!(import_file(Path::new("/dev/zero")), Err(ImportError::Read { .. })));
}

proptest! {
    #[test]
    fn random_bytes_are_no_model(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // By chance they may be a model, but never one with nodes.
        let nodes = import_bytes(&bytes, &ImportOptions::default()).map_or(0, |graph| graph.node_count());
        prop_assert_eq!(nodes, 0);
    }

    #[test]
    fn cut_models_are_refused(len in 0..small_model().len()) {
        prop_assert!(import_bytes(&small_model()[..len], &ImportOptions::default()).is_err());
    }

    /// Whatever a changed byte makes of a model, importing it ends.
    #[test]
    fn changed_bytes_do_no_harm(at in 0..small_model().len(), byte in any::<u8>()) {
        let mut bytes = small_model();
        bytes[at] = byte;
        if let Ok(graph) = import_bytes(&bytes, &ImportOptions::default()) {
            prop_assert!(graph.node_count() <= 2);
        }
    }
}
