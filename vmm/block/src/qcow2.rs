//! qcow2 images, by the imago crate.
//!
//! What an image refers to is opened only if it lies beside it: a backing file is a plain file
//! name in the image's own directory, with its format stated, read-only; a chain has at most
//! [`MAX_DEPTH`] files. External data files are refused.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use imago::file::File as Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};
use vm_memory::VolatileSlice;

use crate::open::open_backing;
use crate::raw::bytes;
use crate::{Access, Disk, DiskError, OpenError, SECTOR, Space, refcounts};

/// Files in a chain, the image itself included.
const MAX_DEPTH: usize = 8;

/// Where backing files may be.
#[derive(Clone, Debug)]
pub(crate) enum Backing {
    /// In this directory.
    In(PathBuf),
    /// Nowhere.
    Refused,
}

impl Backing {
    pub(crate) fn within(directory: Option<&Path>) -> Self {
        match directory {
            Some(directory) if directory.as_os_str().is_empty() => Self::In(PathBuf::from(".")),
            Some(directory) => Self::In(directory.to_owned()),
            None => Self::Refused,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Qcow2Disk {
    image: FormatAccess<Storage>,
    name: String,
    access: Access,
    size: u64,
    capacity: u64,
}

impl Qcow2Disk {
    pub(crate) fn new(file: File, name: String, access: Access, backing: Backing) -> Result<Self, OpenError> {
        let image = open_layer(file, &name, access, &backing, 1)?;
        let size = image.size();
        let Some(capacity) = size.checked_next_multiple_of(SECTOR).filter(|&capacity| capacity > 0) else {
            return Err(OpenError::Empty { name });
        };
        Ok(Self { image, name, access, size, capacity })
    }

    fn fault(&self, action: &'static str, error: io::Error) -> DiskError {
        DiskError::new(action, &self.name, error)
    }

    /// Checks a write; what it gives is the length that the image has of it: the last sector
    /// may be a part of one.
    fn check_write(&self, action: &'static str, offset: u64, len: u64) -> Result<u64, DiskError> {
        if self.access == Access::ReadOnly {
            return Err(self.fault(action, io::ErrorKind::Unsupported.into()));
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.capacity => Ok(len.min(self.size.saturating_sub(offset))),
            _ => Err(DiskError::out_of_range(action, &self.name)),
        }
    }
}

fn open_layer(
    file: File,
    name: &str,
    access: Access,
    backing: &Backing,
    depth: usize,
) -> Result<FormatAccess<Storage>, OpenError> {
    let bad = |source| OpenError::Qcow2 { name: name.to_owned(), source };
    let refused = |refers_to: &str, why| OpenError::Reference {
        name: name.to_owned(),
        refers_to: refers_to.to_owned(),
        why,
    };
    if access == Access::ReadWrite {
        refcounts::check(&file).map_err(bad)?;
    }
    let storage = Storage::try_from(file).map_err(bad)?;
    let builder = Qcow2::<Storage>::builder(storage).backing(None).data_file(None);
    let mut image =
        builder.write(access == Access::ReadWrite).open(DenyImplicitOpenGate::default()).map_err(bad)?;
    if image.requires_external_data_file() {
        let data_file = image.implicit_external_data_file().cloned().unwrap_or_default();
        return Err(refused(
            &data_file,
            "external data files are not supported; convert it with `qemu-img convert`",
        ));
    }
    if let Some(reference) = image.implicit_backing_file().cloned() {
        let Backing::In(directory) = backing else {
            return Err(refused(&reference, "backing files are not allowed here"));
        };
        if depth >= MAX_DEPTH {
            return Err(refused(&reference, "the chain of backing files is too long; commit or convert it"));
        }
        let path = beside(directory, &reference).ok_or_else(|| {
            refused(&reference, "a backing file must be a plain file name in the image's own directory")
        })?;
        let below = path.display().to_string();
        let layer = match image.implicit_backing_format().map(String::as_str) {
            Some("qcow2") => {
                open_layer(open_backing(&path, &below)?, &below, Access::ReadOnly, backing, depth + 1)?
            }
            Some("raw") => open_raw_layer(open_backing(&path, &below)?, &below)?,
            _ => {
                return Err(refused(
                    &reference,
                    "its format, raw or qcow2, must be stated: use `qemu-img rebase -u -F`",
                ));
            }
        };
        image.set_backing(Some(layer));
    }
    Ok(FormatAccess::new(image))
}

fn open_raw_layer(file: File, name: &str) -> Result<FormatAccess<Storage>, OpenError> {
    let open = |source| OpenError::Open { name: name.to_owned(), access: Access::ReadOnly, source };
    let storage = Storage::try_from(file).map_err(open)?;
    let raw = Raw::builder(storage).open(DenyImplicitOpenGate::default()).map_err(open)?;
    Ok(FormatAccess::new(raw))
}

/// The path of `reference` if it is a plain file name.
fn beside(directory: &Path, reference: &str) -> Option<PathBuf> {
    let mut parts = Path::new(reference).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) if name == reference => Some(directory.join(name)),
        _ => None,
    }
}

impl Disk for Qcow2Disk {
    fn name(&self) -> &str {
        &self.name
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn access(&self) -> Access {
        self.access
    }

    fn read(&mut self, to: &[VolatileSlice<'_>], offset: u64) -> Result<(), DiskError> {
        match offset.checked_add(bytes(to)) {
            Some(end) if end <= self.capacity => {}
            _ => return Err(DiskError::out_of_range("read", &self.name)),
        }
        let (buffers, guard) = IoVectorMut::from_volatile_slice(to);
        let result = self.image.readv(buffers, offset);
        drop(guard);
        result.map_err(|error| self.fault("read", error))
    }

    fn write(&mut self, from: &[VolatileSlice<'_>], offset: u64) -> Result<(), DiskError> {
        let len = self.check_write("write to", offset, bytes(from))?;
        let (buffers, guard) = IoVector::from_volatile_slice(from);
        let (inside, _) = buffers.split_at(len);
        let result = self.image.writev(inside, offset);
        drop(guard);
        result.map_err(|error| self.fault("write to", error))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        // First the tables that are cached, then all of it to the storage.
        let result = self.image.flush().and_then(|()| self.image.sync());
        result.map_err(|error| self.fault("flush", error))
    }

    fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        let len = self.check_write("discard blocks of", offset, len)?;
        match self.image.discard_to_any(offset, len) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                Err(self.fault("discard blocks of", error))
            }
            _ => Ok(()),
        }
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, space: Space) -> Result<(), DiskError> {
        let len = self.check_write("write zeroes to", offset, len)?;
        let result = match space {
            Space::Free => self.image.discard_to_zero(offset, len),
            Space::Keep => self.image.write_zeroes(offset, len),
        };
        result.map_err(|error| self.fault("write zeroes to", error))
    }
}
