//! GRUB 2: its generated configuration is a script, which is run as GRUB runs it, up to what it would boot.
//! Source: the GNU GRUB manual 2.06, "Writing full configuration files directly" and "Commands".
//!
//! `script` parses, `machine` runs, `commands` are those that a configuration needs, `test` is the command `test`.

mod commands;
mod machine;
mod script;
mod test;

use super::{FileRef, LoaderKind, Menu};
use crate::BootError;
use crate::limits;
use crate::partition::{PartitionKind, TableKind};
use crate::volume::{VolumeId, Volumes};

use machine::Machine;

/// Where its configuration may be: on the root file system, or on a partition of its own for `/boot`.
const PLACES: [&str; 4] =
    ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg"];

/// What GRUB offers; `None` without a configuration.
///
/// 1. The configuration is looked for where distributions have it.
/// 2. Else one on the EFI system partition is run, which mostly leads to another by its file system's UUID.
pub(super) fn read(volumes: &Volumes) -> Result<Option<Menu>, BootError> {
    let own = volumes.readable().find_map(|(volume, _, files)| {
        let path = PLACES.iter().find(|p| files.size(p).is_some())?;
        Some(FileRef { volume, path: (*path).to_owned() })
    });
    let Some(path) = own.or_else(|| on_esp(volumes)) else { return Ok(None) };
    let text = volumes.read_file(path.volume, &path.path, limits::CONFIGURATION)?;
    let wrong = |reason: String| BootError::Configuration {
        loader: LoaderKind::Grub,
        path: path.path.clone(),
        reason,
    };
    let mut machine = Machine::new(volumes, &path);
    machine.run_text(&String::from_utf8_lossy(&text)).map_err(wrong)?;
    Ok(Some(machine.menu(path.clone())))
}

/// `EFI/VENDOR/grub.cfg` of an EFI system partition; the vendor's before that of removable media.
fn on_esp(volumes: &Volumes) -> Option<FileRef> {
    volumes.readable().filter(|(_, v, _)| v.kind == PartitionKind::Esp).find_map(|(volume, _, files)| {
        let mut vendors = files.names("/EFI").ok()?;
        vendors.sort_by_key(|name| name.eq_ignore_ascii_case("boot"));
        let path = vendors.iter().map(|v| format!("/EFI/{v}/grub.cfg")).find(|p| files.size(p).is_some())?;
        Some(FileRef { volume, path })
    })
}

/// What GRUB calls a volume.
fn device_name(volumes: &Volumes, id: VolumeId) -> String {
    match volumes.get(id).map(|v| (v.table, v.number)) {
        Some((TableKind::Gpt, number)) => format!("hd0,gpt{number}"),
        Some((TableKind::Mbr, number)) => format!("hd0,msdos{number}"),
        _ => "hd0".to_owned(),
    }
}

/// The volume of a name of GRUB's: `hd0,gpt2`, `hd0,2`, `hd0`; every disk is this one.
fn device(volumes: &Volumes, name: &str) -> Option<VolumeId> {
    let name = name.trim_start_matches('(').trim_end_matches(')');
    let number: u32 = match name.split_once(',') {
        Some((disk, partition)) if disk.starts_with("hd") => {
            partition.trim_start_matches("gpt").trim_start_matches("msdos").parse().ok()?
        }
        None if name.starts_with("hd") => 0,
        _ => return None,
    };
    volumes.readable().find(|(_, v, _)| v.number == number).map(|(id, ..)| id)
}
