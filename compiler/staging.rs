//! A folder that appears whole or not at all.
//!
//! Its files are written into a hidden folder beside the final place. [`Staging::commit`] then puts it there with one
//! rename; a folder that is there already is exchanged in one step where the system can. A folder that is dropped before
//! is removed. One that was left behind because the process was killed is removed by the next build to the same place.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Why a folder could not be written. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {}", .path.display(), describe(.source))]
pub struct WriteError {
    /// What could not be written: the final folder, or a file in it.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// What went wrong, in words that say what to do where the system's own do not.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        io::ErrorKind::FileTooLarge => "the file would be larger than the system allows".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        io::ErrorKind::NotFound => "the folder that it would be in does not exist".to_owned(),
        io::ErrorKind::NotADirectory => "a part of this path is a file, not a folder".to_owned(),
        _ => error.to_string(),
    }
}

/// A folder that is being written.
#[derive(Debug)]
pub struct Staging {
    target: PathBuf,
    // Dropped before the parents, which can only go once it is gone.
    folder: TempDir,
    parents: MadeFolders,
    /// Locked for as long as this process writes, so that others can tell it from one that was left behind.
    _lock: Option<File>,
}

impl Staging {
    /// Starts a folder that will be at `target`, whose parents are made if they are missing.
    pub fn new(target: &Path) -> Result<Self, WriteError> {
        let fail = |source| WriteError { path: target.to_owned(), source };
        let name = target
            .file_name()
            .ok_or_else(|| fail(io::Error::new(io::ErrorKind::InvalidInput, "it does not end with a folder's name")))?;
        let parent = parent_of(target);
        let parents = MadeFolders::new(parent).map_err(fail)?;
        let mut prefix = OsString::from(".tcc-");
        prefix.push(name);
        prefix.push("-");
        remove_left_behind(parent, &prefix);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // Less the process's mask, as any new folder. Temporary folders are closed to others otherwise.
            builder.permissions(fs::Permissions::from_mode(0o777));
        }
        let folder = builder.tempdir_in(parent).map_err(fail)?;
        let lock = File::open(folder.path()).ok().filter(|file| file.try_lock().is_ok());
        Ok(Staging { target: target.to_owned(), folder, parents, _lock: lock })
    }

    /// Where a file of the folder is while it is being written.
    pub fn path(&self, relative: &Path) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes one file, whose folder is made if it is missing.
    pub fn write<T>(
        &self,
        relative: &Path,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>,
    ) -> Result<T, WriteError> {
        let path = self.path(relative);
        let result = (|| {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut writer = BufWriter::new(File::create(&path)?);
            let result = write(&mut writer)?;
            writer.flush()?;
            Ok(result)
        })();
        result.map_err(|source| self.error(relative, source))
    }

    /// An error about a file of the folder, named by its final place.
    pub fn error(&self, relative: &Path, source: io::Error) -> WriteError {
        WriteError { path: self.target.join(relative), source }
    }

    /// Puts the folder in its place, instead of what is there.
    pub fn commit(self) -> Result<(), WriteError> {
        let Staging { target, folder, mut parents, _lock } = self;
        let fail = |source| WriteError { path: target.clone(), source };
        parents.keep();
        if !target.exists() {
            fs::rename(folder.path(), &target).map_err(fail)?;
            let _moved = folder.keep();
            return Ok(());
        }
        match exchange(folder.path(), &target) {
            Ok(()) => {
                // What was there before is now the temporary folder, which goes as every temporary folder does. That it
                // might not go entirely is no reason to call the build failed: the next one removes it.
                drop(folder);
                Ok(())
            }
            Err(_) => replace(folder, &target).map_err(fail),
        }
    }
}

/// Folders that were made for a build to be in, and that go again if it does not come to be.
#[derive(Debug)]
struct MadeFolders(Vec<PathBuf>);

impl MadeFolders {
    fn new(folder: &Path) -> io::Result<Self> {
        let missing = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        let made = MadeFolders(missing);
        fs::create_dir_all(folder)?;
        Ok(made)
    }

    fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for MadeFolders {
    fn drop(&mut self) {
        for folder in &self.0 {
            // Only empty ones go: somebody else may have put something there meanwhile.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The folder that `path` is in.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Exchanges two folders in one step.
#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

/// Exchanges two folders in one step.
#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Replaces `target` in two steps, and takes the first one back if the second fails.
fn replace(folder: TempDir, target: &Path) -> io::Result<()> {
    let aside = tempfile::Builder::new().prefix(".tcc-old-").tempdir_in(parent_of(target))?;
    let old = aside.path().join("old");
    fs::rename(target, &old)?;
    if let Err(error) = fs::rename(folder.path(), target) {
        fs::rename(&old, target)?;
        return Err(error);
    }
    let _moved = folder.keep();
    Ok(())
}

/// Removes folders of builds that were killed. Those that are in use are locked.
fn remove_left_behind(parent: &Path, prefix: &OsString) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes())
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_left_behind = || File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok());
        if is_ours && is_left_behind() {
            // If it cannot be removed it is in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    // Tests fail by panicking.
    #![allow(clippy::unwrap_used, reason = "Tests fail by panicking.")]

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn stage(target: &Path, text: &str) -> Staging {
        let staging = Staging::new(target).unwrap();
        staging.write(Path::new("sub/file"), |file| file.write_all(text.as_bytes())).unwrap();
        staging
    }

    #[test]
    fn a_dropped_folder_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        drop(stage(&root.path().join("new/deep/out"), "x"));
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn a_committed_folder_replaces_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        stage(&target, "old").commit().unwrap();
        stage(&target, "new").commit().unwrap();
        assert_eq!(fs::read_to_string(target.join("sub/file")).unwrap(), "new");
        assert_eq!(names(root.path()), ["out"]);
    }

    #[test]
    fn replacing_in_two_steps_leaves_nothing_either() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        stage(&target, "old").commit().unwrap();
        replace(stage(&target, "new").folder, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("sub/file")).unwrap(), "new");
        assert_eq!(names(root.path()), ["out"]);
    }

    #[test]
    fn what_a_killed_build_left_is_removed_and_what_another_writes_is_not() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        fs::create_dir(root.path().join(".tcc-out-dead")).unwrap();
        let busy = stage(&target, "busy");
        stage(&target, "done").commit().unwrap();
        assert_eq!(names(root.path()).len(), 2, "{:?}", names(root.path()));
        assert!(busy.path(Path::new("sub/file")).exists());
        assert!(!root.path().join(".tcc-out-dead").exists());
    }
}
