//! Files next to a model that hold its weights.
//!
//! A model names them, so they are untrusted: only regular files inside the model's folder are opened. Each is mapped once
//! and shared by all tensors in it.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::mapped;

/// Why an external file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExternalError {
    /// The model was not read from a file.
    #[error("its data is in the file `{0}`, but the model was not read from a folder; import it by its path")]
    NoFolder(String),
    /// The location is not a plain relative path.
    #[error(
        "its data is said to be in `{0}`, which is not a path inside the model's folder; tcc opens no other files. Move the \
         file next to the model and correct the location"
    )]
    Outside(String),
    /// The location is a link to somewhere else.
    #[error(
        "its data is said to be in `{0}`, a link that leads out of the model's folder; tcc opens no other files. Put the \
         file itself next to the model"
    )]
    Link(String),
    /// The file is not there.
    #[error(
        "its data file `{0}` is missing; put it next to the model, or pass --no-weights to compile without the values of \
         the weights"
    )]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("its data file `{path}` cannot be read: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

/// The external files of one model.
#[derive(Debug, Default)]
pub struct ExternalFiles {
    /// Folder of the model as the user named it; `None` for a model that came from memory.
    folder: Option<PathBuf>,
    /// Folders, free of links, that files may be in.
    roots: Vec<PathBuf>,
    maps: HashMap<String, Result<Arc<Mmap>, ExternalError>>,
}

impl ExternalFiles {
    /// The files next to the model at `model`.
    pub fn next_to(model: &Path) -> Self {
        let folder = match model.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        // A model that is itself a link (as in the cache of Hugging Face) has its data next to where it really is.
        let real_folder = model.canonicalize().ok().and_then(|model| model.parent().map(Path::to_owned));
        let roots = folder.canonicalize().ok().into_iter().chain(real_folder).collect();
        ExternalFiles { folder: Some(folder), roots, maps: HashMap::new() }
    }

    /// No files: for a model that was not read from a path.
    pub fn none() -> Self {
        ExternalFiles::default()
    }

    /// The file that a model calls `location`.
    pub fn open(&mut self, location: &str) -> Result<Arc<Mmap>, ExternalError> {
        if let Some(known) = self.maps.get(location) {
            return known.clone();
        }
        let result = self.map(location);
        self.maps.insert(location.to_owned(), result.clone());
        result
    }

    fn map(&self, location: &str) -> Result<Arc<Mmap>, ExternalError> {
        let Some(folder) = &self.folder else { return Err(ExternalError::NoFolder(location.to_owned())) };
        let relative = Path::new(location);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !plain || location.is_empty() || location.contains('\0') {
            return Err(ExternalError::Outside(location.to_owned()));
        }
        let path = folder.join(relative);
        let read = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => ExternalError::Missing(path.clone()),
            _ => ExternalError::Read { path: path.clone(), reason: error.to_string() },
        };
        let real = path.canonicalize().map_err(read)?;
        if !self.roots.iter().any(|root| real.starts_with(root)) {
            return Err(ExternalError::Link(location.to_owned()));
        }
        mapped::map(&real).map_err(read)
    }
}
