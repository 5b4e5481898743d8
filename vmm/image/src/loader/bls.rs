//! The Boot Loader Specification: `loader/entries/*.conf` and `EFI/Linux/*.efi`.
//! Source: UAPI Group's specification, version 1.0; systemd-boot's `loader.conf`.

use std::cmp::Ordering;

use super::{Entry, FileRef, Kernel, LoaderKind, Menu, Unified, absolute, version};
use crate::BootError;
use crate::limits;
use crate::partition::PartitionKind;
use crate::volume::{VolumeId, Volumes};

const ENTRIES: &str = "/loader/entries";
const UNIFIED: &str = "/EFI/Linux";
const LOADER_CONF: &str = "/loader/loader.conf";

/// An entry and what it is sorted by.
struct Found {
    entry: Entry,
    sort_key: String,
    machine_id: String,
    version: String,
    /// Every attempt to boot it has failed.
    spent: bool,
}

/// What the entries of the boot partitions offer; `None` where there are none.
///
/// The specification's `$BOOT` is the extended boot partition, else the EFI system partition; images
/// without either have a folder of the root file system.
pub(super) fn read(volumes: &Volumes) -> Result<Option<Menu>, BootError> {
    let rank = |kind| match kind {
        PartitionKind::ExtendedBoot => 0,
        PartitionKind::Esp => 1,
        _ => 2,
    };
    let mut order: Vec<(VolumeId, PartitionKind)> =
        volumes.readable().map(|(id, v, _)| (id, v.kind)).collect();
    order.sort_by_key(|(_, kind)| rank(*kind));
    let mut found = Vec::new();
    let mut notes = Vec::new();
    let mut path = None;
    for (id, kind) in order {
        let below = if rank(kind) == 2 { ["", "/boot", "/efi", "/boot/efi"].as_slice() } else { &[""] };
        for folder in below {
            let entries = format!("{folder}{ENTRIES}");
            let before = found.len();
            found.extend(plain(volumes, id, &entries, folder, &|text| text.to_owned(), &mut notes)?);
            found.extend(unified(volumes, id, &format!("{folder}{UNIFIED}"), &mut notes));
            if found.len() > before && path.is_none() {
                path = Some(FileRef { volume: id, path: format!("{folder}/loader") });
            }
        }
    }
    let Some(path) = path else { return Ok(None) };
    found.sort_by(newest_first);
    let pattern = volumes
        .readable()
        .find_map(|(_, _, files)| files.read(LOADER_CONF, limits::CONFIGURATION).ok())
        .and_then(|text| default_pattern(&String::from_utf8_lossy(&text)));
    let entries: Vec<Entry> = found.into_iter().map(|f| f.entry).take(limits::ENTRIES).collect();
    let chosen = pattern.and_then(|pattern| entries.iter().position(|e| matches(&pattern, &e.id)));
    Ok(Some(Menu {
        loader: LoaderKind::BootLoaderSpecification,
        path,
        entries,
        default: Ok(chosen.unwrap_or(0)),
        notes,
    }))
}

/// Entries of a folder for GRUB's `blscfg`, newest first. `expand` fills GRUB's variables in.
pub(super) fn for_grub(
    volumes: &Volumes,
    id: VolumeId,
    folder: &str,
    expand: &dyn Fn(&str) -> String,
    notes: &mut Vec<String>,
) -> Result<Vec<Entry>, BootError> {
    // Paths in an entry start where its loader folder is, unless that is /boot of the root file system.
    let root = folder.strip_suffix(ENTRIES).unwrap_or_default();
    let mut found = plain(volumes, id, folder, root, expand, notes)?;
    // GRUB sorts by file name, as rpm compares versions.
    found.sort_by(|a, b| version::compare(&b.entry.id, &a.entry.id));
    Ok(found.into_iter().map(|f| f.entry).collect())
}

fn plain(
    volumes: &Volumes,
    id: VolumeId,
    folder: &str,
    root: &str,
    expand: &dyn Fn(&str) -> String,
    notes: &mut Vec<String>,
) -> Result<Vec<Found>, BootError> {
    let Some(files) = volumes.files(id) else { return Ok(Vec::new()) };
    let Ok(names) = files.names(folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for name in names.iter().filter(|n| n.ends_with(".conf")).take(limits::ENTRIES) {
        let path = format!("{folder}/{name}");
        let text = volumes.read_file(id, &path, limits::CONFIGURATION)?;
        match parse(id, name, &String::from_utf8_lossy(&text), root, expand) {
            Ok(entry) => found.push(entry),
            Err(why) => notes.push(format!("{path}: {why}")),
        }
    }
    Ok(found)
}

fn unified(volumes: &Volumes, id: VolumeId, folder: &str, notes: &mut Vec<String>) -> Vec<Found> {
    let Some(files) = volumes.files(id) else { return Vec::new() };
    let Ok(names) = files.names(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for name in names.iter().filter(|n| n.to_ascii_lowercase().ends_with(".efi")).take(limits::ENTRIES) {
        let path = format!("{folder}/{name}");
        let parsed = files.read(&path, limits::KERNEL).map_err(|e| e.to_string());
        match parsed.and_then(|bytes| Unified::parse(&bytes)) {
            Ok(image) => found.push(of_image(id, name, path, image)),
            Err(why) => notes.push(format!("{path}: {why}")),
        }
    }
    found
}

fn of_image(id: VolumeId, name: &str, path: String, image: Unified) -> Found {
    let (stem, spent) = counted(name.rsplit_once('.').map_or(name, |(stem, _)| stem));
    let title = if image.title.is_empty() { stem.to_owned() } else { image.title };
    Found {
        entry: Entry {
            id: name.to_owned(),
            title,
            kernel: Kernel::Unified(FileRef { volume: id, path }),
            initrds: Vec::new(),
            command_line: image.command_line,
        },
        sort_key: String::new(),
        machine_id: String::new(),
        version: if image.release.is_empty() { stem.to_owned() } else { image.release },
        spent,
    }
}

fn parse(
    id: VolumeId,
    name: &str,
    text: &str,
    root: &str,
    expand: &dyn Fn(&str) -> String,
) -> Result<Found, String> {
    let (stem, spent) = counted(name.strip_suffix(".conf").unwrap_or(name));
    let mut found = Found {
        entry: Entry {
            id: name.to_owned(),
            title: stem.to_owned(),
            kernel: Kernel::Plain(FileRef { volume: id, path: String::new() }),
            initrds: Vec::new(),
            command_line: String::new(),
        },
        sort_key: String::new(),
        machine_id: String::new(),
        version: String::new(),
        spent,
    };
    // GRUB writes paths of /boot as they are seen from the root file system, or from /boot itself.
    let file = |value: &str| FileRef { volume: id, path: placed(root, &expand(value)) };
    let mut options = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        let Some((key, value)) = line.split_once([' ', '\t']) else { continue };
        let value = value.trim();
        match key {
            "title" => found.entry.title = expand(value),
            "version" => value.clone_into(&mut found.version),
            "machine-id" => value.clone_into(&mut found.machine_id),
            "sort-key" => value.clone_into(&mut found.sort_key),
            "linux" => found.entry.kernel = Kernel::Plain(file(value)),
            "efi" | "uki" => found.entry.kernel = Kernel::Unified(file(value)),
            "initrd" => found.entry.initrds.extend(expand(value).split_whitespace().map(file)),
            "options" => options.push(expand(value)),
            "architecture" if !["x64", "x86_64"].contains(&value.to_ascii_lowercase().as_str()) => {
                return Err(format!("it is for {value}"));
            }
            _ => {}
        }
    }
    if found.entry.kernel.file().path.is_empty() {
        return Err("it has neither linux nor efi".to_owned());
    }
    found.entry.command_line = options.join(" ");
    Ok(found)
}

fn placed(root: &str, path: &str) -> String {
    let path = absolute("", path);
    if root.is_empty() || path.starts_with(&format!("{root}/")) { path } else { format!("{root}{path}") }
}

/// The name without its boot counter (`+LEFT[-DONE]`), and whether none is left.
fn counted(stem: &str) -> (&str, bool) {
    let Some((name, counter)) = stem.rsplit_once('+') else { return (stem, false) };
    let left = counter.split('-').next().unwrap_or_default();
    match left.parse::<u32>() {
        Ok(left) => (name, left == 0),
        Err(_) => (stem, false),
    }
}

/// As systemd-boot sorts: what still may be tried first; with a sort key before without; by key, machine, version.
fn newest_first(a: &Found, b: &Found) -> Ordering {
    let keyed = |f: &Found| !f.sort_key.is_empty();
    a.spent
        .cmp(&b.spent)
        .then_with(|| keyed(b).cmp(&keyed(a)))
        .then_with(|| match keyed(a) && keyed(b) {
            true => a.sort_key.cmp(&b.sort_key).then_with(|| a.machine_id.cmp(&b.machine_id)),
            false => Ordering::Equal,
        })
        .then_with(|| version::compare(&b.version, &a.version))
        .then_with(|| version::compare(&b.entry.id, &a.entry.id))
}

fn default_pattern(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find_map(|l| l.strip_prefix("default"))?;
    let pattern = line.trim();
    // `@saved` is a variable of the firmware, which there is none of.
    (line.starts_with([' ', '\t']) && !pattern.is_empty() && !pattern.starts_with('@'))
        .then(|| pattern.to_owned())
}

/// Whether a name fits a pattern of `*` and `?`; case does not matter, nor does the ending.
fn matches(pattern: &str, name: &str) -> bool {
    let stem = name.strip_suffix(".conf").unwrap_or(name);
    [name, stem].iter().any(|n| glob(pattern.to_lowercase().as_bytes(), n.to_lowercase().as_bytes()))
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    // Where the last `*` was, and how far the name had been taken then.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || name.get(n) == Some(c) => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names_as_a_shell_has_it() {
        assert!(matches("debian-*", "debian-6.1.conf"));
        assert!(matches("debian-6.1", "debian-6.1.conf"));
        assert!(matches("*6.?.conf", "Debian-6.1.conf"));
        assert!(!matches("arch-*", "debian-6.1.conf"));
        assert!(!matches("debian", "debian-6.1.conf"));
    }

    #[test]
    fn a_boot_counter_is_no_part_of_the_name() {
        assert_eq!(counted("debian-6.1+3"), ("debian-6.1", false));
        assert_eq!(counted("debian-6.1+0-3"), ("debian-6.1", true));
        assert_eq!(counted("debian+tools"), ("debian+tools", false));
    }

    #[test]
    fn the_default_of_the_loader_is_a_pattern() {
        assert_eq!(default_pattern("timeout 3\ndefault debian-*\n"), Some("debian-*".to_owned()));
        assert_eq!(default_pattern("default @saved"), None);
        assert_eq!(default_pattern("timeout 3"), None);
    }
}
