//! ext2, ext3 and ext4, by `ext4-view`, which replays the journal in memory: a guest that was killed has left one.

use std::io::Write;

use ext4_view::{Ext4, Ext4Error, Ext4Read};

use super::{FileError, Files};
use crate::limits;
use crate::media::Window;

struct Reader(Window);

impl Ext4Read for Reader {
    fn read(
        &mut self,
        start: u64,
        to: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        self.0.read_exact_at(to, start).map_err(|e| e.to_string().into())
    }
}

struct ExtFiles(Ext4);

pub(super) fn open(partition: &Window) -> Result<Box<dyn Files>, FileError> {
    let opened = Ext4::load(Box::new(Reader(partition.clone()))).map_err(failed)?;
    Ok(Box::new(ExtFiles(opened)))
}

fn failed(e: Ext4Error) -> FileError {
    match e {
        Ext4Error::NotFound | Ext4Error::NotADirectory | Ext4Error::IsADirectory => FileError::Absent,
        Ext4Error::Io(e) => FileError::Damaged(e.to_string()),
        e => FileError::Damaged(e.to_string()),
    }
}

impl Files for ExtFiles {
    fn uuid(&self) -> String {
        self.0.uuid().to_string()
    }

    fn label(&self) -> String {
        self.0.label().to_str().unwrap_or_default().to_owned()
    }

    fn copy(&self, path: &str, most: u64, to: &mut dyn Write) -> Result<u64, FileError> {
        let file = self.0.open(path).map_err(failed)?;
        let size = file.metadata().len();
        if size > most {
            return Err(FileError::TooLarge { size, most });
        }
        super::copy(file, most, to)
    }

    fn names(&self, path: &str) -> Result<Vec<String>, FileError> {
        let mut names = Vec::new();
        for entry in self.0.read_dir(path).map_err(failed)?.take(limits::NAMES) {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().as_str().unwrap_or_default().to_owned();
            if !["", ".", ".."].contains(&name.as_str()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn size(&self, path: &str) -> Option<u64> {
        let metadata = self.0.metadata(path).ok()?;
        metadata.file_type().is_regular_file().then(|| metadata.len())
    }
}
