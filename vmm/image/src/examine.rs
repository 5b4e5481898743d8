//! From the bytes of an image to what would boot.

use std::fmt;
use std::io::Write;

use crate::filesystem::FileSystemKind;
use crate::loader::{self, Kernel, Menu, Unified};
use crate::media::Window;
use crate::volume::{Volume, Volumes};
use crate::{BootError, EntryReport, ImageReport, Media, PartitionReport, limits};

/// An image that was looked at.
pub struct Examined {
    volumes: Volumes,
    menu: Result<Menu, BootError>,
    size: u64,
}

impl fmt::Debug for Examined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Examined").field("size", &self.size).field("menu", &self.menu).finish_non_exhaustive()
    }
}

/// Looks at an image. Reads no kernel unless it is a unified one.
///
/// # Errors
/// [`BootError::Media`] and [`BootError::Table`]; whatever else is wrong is told by [`Examined::boot`].
pub fn examine(media: Box<dyn Media>) -> Result<Examined, BootError> {
    let disk = Window::of(media);
    let size = disk.length();
    Ok(Examined::of(Volumes::read(&disk)?, size))
}

fn no_loader(volumes: &Volumes) -> BootError {
    let damaged = volumes.all.iter().find_map(|v| Some((v.number, v.files.as_ref()?.as_ref().err()?)));
    if let Some((partition, e)) = damaged {
        return BootError::File { partition, path: "/".to_owned(), reason: e.to_string() };
    }
    let unread = volumes.all.iter().filter(|v| v.holds.may_boot() || v.is_only(volumes));
    BootError::NoLoader { unread: unread.map(|v| (v.number, v.holds)).collect() }
}

impl Volume {
    /// The whole disk, with nothing known on it.
    fn is_only(&self, volumes: &Volumes) -> bool {
        volumes.all.len() == 1 && self.number == 0 && self.holds == FileSystemKind::Unknown
    }
}

impl Examined {
    /// What the loaders make of the volumes.
    pub(crate) fn of(volumes: Volumes, size: u64) -> Self {
        let menu = match loader::find(&volumes) {
            Ok(Some(menu)) => Ok(menu),
            Ok(None) => Err(no_loader(&volumes)),
            Err(e) => Err(e),
        };
        Self { volumes, menu, size }
    }

    /// Reads what would boot: the kernel goes to one file, all initrds behind one another to another. Says the
    /// kernel's command line.
    ///
    /// # Errors
    /// [`BootError`]: why nothing would; something may have been written then.
    pub fn boot(&self, kernel: &mut dyn Write, initrd: &mut dyn Write) -> Result<String, BootError> {
        let menu = self.menu.as_ref().map_err(Clone::clone)?;
        let wrong = |reason: String| BootError::Configuration {
            loader: menu.loader,
            path: menu.path.path.clone(),
            reason,
        };
        let chosen = menu.default.clone().map_err(wrong)?;
        let entry = menu.entries.get(chosen).ok_or_else(|| wrong("it has no entries".to_owned()))?;
        let file = entry.kernel.file();
        let put = |to: &mut dyn Write, bytes: &[u8]| {
            to.write_all(bytes).map_err(|e| wrong(format!("{}: {e}", file.path)))
        };
        let mut written = 0;
        let line = match &entry.kernel {
            Kernel::Plain(_) => {
                self.volumes.copy_file(file.volume, &file.path, limits::KERNEL, kernel)?;
                entry.command_line.clone()
            }
            Kernel::Unified(_) => {
                let bytes = self.volumes.read_file(file.volume, &file.path, limits::KERNEL)?;
                let image = Unified::parse(&bytes).map_err(|why| wrong(format!("{}: {why}", file.path)))?;
                put(kernel, &image.kernel)?;
                put(initrd, &image.initrd)?;
                written = image.initrd.len() as u64;
                // An entry's own options count only where the image has none.
                if image.command_line.is_empty() { entry.command_line.clone() } else { image.command_line }
            }
        };
        for file in &entry.initrds {
            // Each starts at a multiple of four.
            let padding = written.next_multiple_of(4) - written;
            put(initrd, [0; 4].get(..usize::try_from(padding).unwrap_or(0)).unwrap_or_default())?;
            written += padding;
            let left = limits::INITRD.saturating_sub(written);
            written += self.volumes.copy_file(file.volume, &file.path, left, initrd)?;
        }
        if line.len() > limits::COMMAND_LINE {
            return Err(wrong(format!("the command line of {:?} is too long", entry.title)));
        }
        Ok(line)
    }

    /// What was found.
    #[must_use]
    pub fn report(&self) -> ImageReport {
        let mut report = ImageReport {
            size_bytes: self.size,
            table: self.volumes.table,
            partitions: self.volumes.all.iter().map(partition).collect(),
            loader: None,
            configuration: None,
            entries: Vec::new(),
            notes: Vec::new(),
            refusal: None,
            reason: None,
        };
        let refusal = match &self.menu {
            Ok(menu) => {
                self.describe(menu, &mut report);
                menu.default.as_ref().err().map(|why| BootError::Configuration {
                    loader: menu.loader,
                    path: menu.path.path.clone(),
                    reason: why.clone(),
                })
            }
            Err(e) => Some(e.clone()),
        };
        report.reason = refusal.as_ref().map(|e| e.reason().to_owned());
        report.refusal = refusal.map(|e| e.to_string());
        report
    }

    fn describe(&self, menu: &Menu, report: &mut ImageReport) {
        let number = |volume| self.volumes.get(volume).map_or(0, |v| v.number);
        report.loader = Some(menu.loader);
        report.configuration = Some(format!("partition {}: {}", number(menu.path.volume), menu.path.path));
        report.notes.clone_from(&menu.notes);
        let entry = |(place, entry): (usize, &loader::Entry)| EntryReport {
            id: entry.id.clone(),
            title: entry.title.clone(),
            is_default: menu.default == Ok(place),
            partition: number(entry.kernel.file().volume),
            kernel: entry.kernel.file().path.clone(),
            initrds: entry.initrds.iter().map(|f| f.path.clone()).collect(),
            command_line: entry.command_line.clone(),
        };
        report.entries = menu.entries.iter().enumerate().map(entry).collect();
    }
}

fn partition(volume: &Volume) -> PartitionReport {
    PartitionReport {
        number: volume.number,
        kind: volume.kind,
        size_bytes: volume.length,
        name: volume.name.clone(),
        partition_uuid: volume.partition_uuid.clone(),
        file_system: volume.holds,
        uuid: volume.files().map(|f| f.uuid()).unwrap_or_default(),
        label: volume.files().map(|f| f.label()).unwrap_or_default(),
        problem: volume.files.as_ref().and_then(|f| f.as_ref().err()).map(ToString::to_string),
    }
}
