//! Syslinux and extlinux. Source: the Syslinux wiki, "Config".

use super::{Entry, FileRef, Kernel, LoaderKind, Menu, absolute, folder};
use crate::BootError;
use crate::limits;
use crate::volume::{VolumeId, Volumes};

/// Where its configuration may be, in the order in which it looks.
const PLACES: [&str; 10] = [
    "/boot/syslinux/syslinux.cfg",
    "/boot/syslinux/extlinux.conf",
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/syslinux/syslinux.cfg",
    "/syslinux.cfg",
    "/extlinux/extlinux.conf",
    "/extlinux.conf",
    "/EFI/BOOT/syslinux.cfg",
    "/EFI/syslinux/syslinux.cfg",
];
/// Files within files.
const DEPTH: u32 = 8;

pub(super) fn read(volumes: &Volumes) -> Result<Option<Menu>, BootError> {
    let found = volumes.readable().find_map(|(volume, _, files)| {
        let path = PLACES.iter().find(|p| files.size(p).is_some())?;
        Some(FileRef { volume, path: (*path).to_owned() })
    });
    let Some(path) = found else { return Ok(None) };
    let mut draft = Draft { folder: folder(&path.path).to_owned(), ..Draft::new(path.volume) };
    draft.include(volumes, &path.path, DEPTH)?;
    Ok(Some(draft.menu(path)))
}

/// A label while it is read.
#[derive(Default)]
struct Label {
    name: String,
    title: Option<String>,
    kernel: Option<String>,
    initrds: Vec<String>,
    append: Option<String>,
    /// Why it cannot be started.
    odd: Option<String>,
}

struct Draft {
    volume: VolumeId,
    /// Paths without a slash in front start here.
    folder: String,
    labels: Vec<Label>,
    default: Option<String>,
    /// `MENU DEFAULT`, `ONTIMEOUT`: stronger.
    preferred: Option<String>,
    /// `APPEND` before the first label.
    append: String,
    notes: Vec<String>,
}

impl Draft {
    fn new(volume: VolumeId) -> Self {
        Self {
            volume,
            folder: String::new(),
            labels: Vec::new(),
            default: None,
            preferred: None,
            append: String::new(),
            notes: Vec::new(),
        }
    }

    fn include(&mut self, volumes: &Volumes, path: &str, depth: u32) -> Result<(), BootError> {
        let wrong = |reason: &str| BootError::Configuration {
            loader: LoaderKind::Syslinux,
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let depth = depth.checked_sub(1).ok_or_else(|| wrong("files include each other"))?;
        let text = volumes.read_file(self.volume, path, limits::CONFIGURATION)?;
        for line in String::from_utf8_lossy(&text).lines() {
            let line = line.trim();
            let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            let rest = rest.trim();
            if word.eq_ignore_ascii_case("include") {
                self.include(volumes, &absolute(&self.folder, rest), depth)?;
            } else {
                self.line(word, rest);
            }
            if self.labels.len() > limits::ENTRIES {
                return Err(wrong("it has more labels than anybody needs"));
            }
        }
        Ok(())
    }

    fn line(&mut self, word: &str, rest: &str) {
        let owned = || Some(rest.to_owned());
        let word = word.to_ascii_lowercase();
        match (word.as_str(), self.labels.last_mut()) {
            ("label", _) => self.labels.push(Label { name: rest.to_owned(), ..Label::default() }),
            ("default", _) => self.default = owned(),
            ("ontimeout", _) => self.preferred = owned(),
            ("append", None) => rest.clone_into(&mut self.append),
            ("append", Some(label)) => label.append = owned(),
            ("kernel" | "linux", Some(label)) => label.kernel = owned(),
            ("initrd", Some(label)) => label.initrds.extend(rest.split(',').map(|f| f.trim().to_owned())),
            ("menu", Some(label)) => {
                let (word, rest) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
                if word.eq_ignore_ascii_case("label") {
                    label.title = Some(rest.trim().replace('^', ""));
                } else if word.eq_ignore_ascii_case("default") {
                    self.preferred = Some(label.name.clone());
                }
            }
            ("com32" | "boot" | "bss" | "pxe" | "fdimage" | "localboot" | "config", Some(label)) => {
                label.odd = Some(format!("{word} is no kernel"));
            }
            _ => {}
        }
    }

    fn menu(mut self, path: FileRef) -> Menu {
        let labels = std::mem::take(&mut self.labels);
        let mut entries = Vec::new();
        for label in labels {
            let name = label.name.clone();
            match self.entry(label) {
                Ok(entry) => entries.push(entry),
                Err(why) => self.notes.push(format!("label {name}: {why}")),
            }
        }
        let wanted = self.preferred.as_ref().or(self.default.as_ref());
        let default = match wanted {
            // A menu's program, which shows the labels: the first is what it would start.
            Some(name) if !name.to_ascii_lowercase().ends_with(".c32") => {
                let found = entries.iter().position(|e| e.id.eq_ignore_ascii_case(name));
                found.ok_or_else(|| format!("its default {name:?} is no label with a kernel"))
            }
            _ if entries.is_empty() => Err("it has no label with a kernel".to_owned()),
            _ => Ok(0),
        };
        Menu { loader: LoaderKind::Syslinux, path, entries, default, notes: self.notes }
    }

    fn entry(&self, label: Label) -> Result<Entry, String> {
        if let Some(why) = label.odd {
            return Err(why);
        }
        let kernel = label.kernel.ok_or("it has no kernel")?;
        if kernel.to_ascii_lowercase().ends_with(".c32") {
            return Err(format!("{kernel} is no kernel"));
        }
        let own = label.append.unwrap_or_default();
        // A hyphen means: not what is common to all.
        let append =
            if own.is_empty() { self.append.as_str() } else { own.strip_prefix('-').unwrap_or(&own) };
        let (given, words): (Vec<&str>, Vec<&str>) =
            append.split_whitespace().partition(|w| w.starts_with("initrd="));
        let file = |path: &str| FileRef { volume: self.volume, path: absolute(&self.folder, path) };
        let from_append =
            given.iter().filter_map(|w| w.strip_prefix("initrd=")).flat_map(|list| list.split(','));
        let initrds = match label.initrds.as_slice() {
            [] => from_append.map(file).collect(),
            own => own.iter().map(|p| file(p)).collect(),
        };
        Ok(Entry {
            title: label.title.unwrap_or_else(|| label.name.clone()),
            id: label.name,
            kernel: Kernel::Plain(file(&kernel)),
            initrds,
            command_line: words.join(" "),
        })
    }
}
