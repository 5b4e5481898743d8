//! Objects of a cluster that a pod has as folders of files: secrets, config maps, fields of the pod.
//!
//! The kubelet writes them: a key is a link into a folder whose name begins with two dots, which it changes as a whole.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::VolumeError;
use super::fat::Files;

/// What the kubelet's own folders begin with.
const HIDDEN: &str = "..";
/// Most of an object. Kubernetes has objects of up to 1 MiB.
const MOST_FILES: usize = 1024;
const MOST_BYTES: usize = 4 << 20;
/// Folders inside each other, at most.
const DEEPEST: usize = 8;

/// A disk of the files in a folder, as they are now.
pub(super) fn image(folder: &Path, label: &str) -> Result<File, VolumeError> {
    let mut files = Files::default();
    collect(folder, folder, "", DEEPEST, &mut files)?;
    files.image(label).map_err(|source| VolumeError::Disk { folder: folder.to_owned(), source })
}

fn collect(
    all: &Path,
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Files,
) -> Result<(), VolumeError> {
    let failed = |path: &Path, source| VolumeError::Find { path: path.to_owned(), source };
    let too_much = || VolumeError::TooMuch { folder: all.to_owned(), files: MOST_FILES, bytes: MOST_BYTES };
    for entry in fs::read_dir(folder).map_err(|e| failed(folder, e))? {
        let entry = entry.map_err(|e| failed(folder, e))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with(HIDDEN) {
            continue;
        }
        let name = format!("{prefix}{name}");
        // Of what a link leads to.
        let kind = fs::metadata(&path).map_err(|e| failed(&path, e))?;
        if kind.is_dir() {
            let depth = depth.checked_sub(1).ok_or_else(too_much)?;
            collect(all, &path, &format!("{name}/"), depth, files)?;
        } else if kind.is_file() {
            let (count, bytes) = files.size();
            let left = MOST_BYTES.saturating_sub(bytes);
            let content = read(&path, left).map_err(|e| failed(&path, e))?;
            let content = content.filter(|_| count < MOST_FILES).ok_or_else(too_much)?;
            if let Some(other) = files.add(&name, content) {
                return Err(VolumeError::SameName { one: name, other });
            }
        }
    }
    Ok(())
}

/// The content of a file; none if it has more bytes than that.
fn read(path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut content)?;
    Ok(Some(content).filter(|content| content.len() <= most))
}

/// The value of the first key of those that there is.
pub(super) fn key(folder: &Path, keys: [&'static str; 2]) -> Result<Vec<u8>, VolumeError> {
    for key in keys {
        let path = folder.join(key);
        match read(&path, MOST_BYTES) {
            Ok(Some(content)) => return Ok(content),
            Ok(None) => {
                let folder = folder.to_owned();
                return Err(VolumeError::TooMuch { folder, files: MOST_FILES, bytes: MOST_BYTES });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && folder.is_dir() => {}
            Err(source) => return Err(VolumeError::Find { path, source }),
        }
    }
    let [wanted, _] = keys;
    Err(VolumeError::NoKey { wanted })
}
