//! Files as a disk: a FAT file system in memory, gone with its descriptor. The same files make the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Room beside the data: tables, and what the largest cluster leaves empty.
const ROOM: usize = 512 << 10;
/// What a file or folder takes at most beside its content.
const CLUSTER: usize = 4096;
/// Bytes of an entry of a folder, and letters of a long name in one.
const ENTRY: usize = 32;
const LETTERS: usize = 13;
/// Letters of a label.
const LONGEST_LABEL: usize = 11;

/// The files of a disk, by their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    files: BTreeMap<String, Vec<u8>>,
    /// Their paths as FAT tells them apart.
    known: BTreeMap<String, String>,
}

impl Files {
    /// Adds a file; the one that is there already under that name, as FAT knows names, where there is one.
    pub(crate) fn add(&mut self, path: &str, content: Vec<u8>) -> Option<String> {
        let known = path.to_lowercase();
        if let Some(other) = self.known.get(&known) {
            return Some(other.clone());
        }
        self.known.insert(known, path.to_owned());
        self.files.insert(path.to_owned(), content);
        None
    }

    /// How many there are, and how large they are together.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.files.len(), self.files.values().map(Vec::len).sum())
    }

    /// The disk, as a file in memory.
    pub(crate) fn image(&self, label: &str) -> io::Result<File> {
        let bytes = self.bytes(label)?;
        let mut file: File = memfd_create(c"pinion-volume", MFdFlags::MFD_CLOEXEC)?.into();
        file.write_all(&bytes)?;
        Ok(file)
    }

    pub(crate) fn bytes(&self, label: &str) -> io::Result<Vec<u8>> {
        let folders = self.files.keys().map(|path| path.matches('/').count()).sum::<usize>();
        let (count, data) = self.size();
        // The folder at the top has as many entries as it is made with.
        let entries = self.files.keys().map(|path| path.len().div_ceil(LETTERS) + 2).sum::<usize>() + ENTRY;
        let entries = u16::try_from(entries.next_multiple_of(512)).map_err(|_| too_many())?;
        let size = data + data / 32 + (count + folders) * CLUSTER + usize::from(entries) * ENTRY + ROOM;
        let mut image = vec![0; size.next_multiple_of(CLUSTER)];
        let options = FormatVolumeOptions::new().volume_label(padded(label)).max_root_dir_entries(entries);
        fatfs::format_volume(Cursor::new(image.as_mut_slice()), options)?;
        {
            let system = FileSystem::new(Cursor::new(image.as_mut_slice()), FsOptions::new())?;
            for (path, content) in &self.files {
                let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
                let mut folder = system.root_dir();
                for part in folders.split('/').filter(|part| !part.is_empty()) {
                    folder = folder.create_dir(part)?;
                }
                folder.create_file(name)?.write_all(content)?;
            }
        }
        Ok(image)
    }
}

fn too_many() -> io::Error {
    io::Error::other("they are too many, or their names too long, for one folder")
}

/// A label as it is stored: blanks at the end.
fn padded(label: &str) -> [u8; LONGEST_LABEL] {
    let mut bytes = [b' '; LONGEST_LABEL];
    for (to, from) in bytes.iter_mut().zip(label.bytes()) {
        *to = from;
    }
    bytes
}

/// The files of such a disk, and its label.
#[cfg(test)]
pub(crate) fn read(image: &[u8]) -> (String, BTreeMap<String, Vec<u8>>) {
    use std::io::Read;
    fn walk(folder: &fatfs::Dir<'_, Cursor<Vec<u8>>>, prefix: &str, into: &mut BTreeMap<String, Vec<u8>>) {
        for entry in folder.iter().map(Result::unwrap) {
            let (name, mut content) = (entry.file_name(), Vec::new());
            if name == "." || name == ".." {
                continue;
            }
            if entry.is_dir() {
                walk(&entry.to_dir(), &format!("{prefix}{name}/"), into);
            } else {
                entry.to_file().read_to_end(&mut content).unwrap();
                into.insert(format!("{prefix}{name}"), content);
            }
        }
    }
    let system = FileSystem::new(Cursor::new(image.to_vec()), FsOptions::new()).unwrap();
    let mut files = BTreeMap::new();
    walk(&system.root_dir(), "", &mut files);
    (system.volume_label(), files)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_differ_in_case_only_are_one() {
        let mut files = Files::default();
        assert_eq!(files.add("Key", b"1".to_vec()), None);
        assert_eq!(files.add("kEY", b"2".to_vec()), Some("Key".to_owned()));
        assert_eq!(files.add("key/of", b"3".to_vec()), None);
        assert_eq!(files.size(), (2, 2));
    }

    #[test]
    fn many_long_names_and_an_empty_disk_fit() {
        let mut files = Files::default();
        assert_eq!(read(&files.bytes("cfgdata").unwrap()), ("cfgdata".to_owned(), BTreeMap::new()));
        for number in 0..200 {
            assert_eq!(files.add(&format!("{number:0>250}"), vec![1]), None);
        }
        let (label, read) = read(&files.bytes("config-2").unwrap());
        assert_eq!((label.as_str(), read), ("config-2", files.files));
    }

    #[test]
    fn what_fat_cannot_hold_is_an_error() {
        let mut files = Files::default();
        files.add("a:b", vec![]);
        files.bytes("a").unwrap_err();
        let mut files = Files::default();
        for number in 0..4000 {
            files.add(&format!("{number:0>250}"), vec![]);
        }
        files.bytes("a").unwrap_err();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_is_put_in_is_read(
            paths in proptest::collection::btree_map("[a-z0-9_-]{1,40}(/[a-z0-9_-]{1,20}){0,2}", 0_usize..300_000, 0..20)
        ) {
            let mut files = Files::default();
            for (number, (path, len)) in paths.iter().enumerate() {
                // A file is no folder.
                if !paths.keys().any(|other| other.starts_with(&format!("{path}/"))) {
                    files.add(path, vec![u8::try_from(number).unwrap(); *len]);
                }
            }
            let image = files.bytes("cfgdata").unwrap();
            prop_assert_eq!(&image, &files.bytes("cfgdata").unwrap());
            prop_assert_eq!(read(&image).1, files.files);
        }
    }
}
