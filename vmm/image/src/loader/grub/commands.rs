//! GRUB's commands, as far as a configuration needs them to come to a kernel.

use super::machine::Machine;
use super::{FileRef, test};
use crate::limits;
use crate::loader::{absolute, bls};
use crate::volume::VolumeId;

/// Bytes of an environment block. Source: GRUB manual, "Environment block".
const ENVIRONMENT: u64 = 64 << 10;
/// What a boot is to do once. It could not be taken back here, so that every boot would do it.
const ONCE: [&str; 2] = ["next_entry", "prev_saved_entry"];

/// Runs a command. One that is not known does nothing, as what it would do cannot be seen from here.
pub(super) fn run(machine: &mut Machine<'_>, name: &str, arguments: &[String]) -> Result<bool, String> {
    match name {
        "set" => {
            for (name, value) in arguments.iter().filter_map(|a| a.split_once('=')) {
                machine.set(name, value)?;
            }
            Ok(true)
        }
        "unset" => {
            arguments.iter().for_each(|name| drop(machine.variables.remove(name)));
            Ok(true)
        }
        "test" => Ok(test::holds(machine, arguments)),
        "[" => {
            Ok(arguments.split_last().is_some_and(|(last, rest)| last == "]" && test::holds(machine, rest)))
        }
        "false" => Ok(false),
        "load_env" => load_env(machine, arguments),
        "search" => search(machine, arguments),
        "search.fs_uuid" | "search.fs_label" | "search.file" => {
            let kind = name.strip_prefix("search.").unwrap_or_default().replace('_', "-");
            let mut words = vec![format!("--{kind}")];
            words.push(format!("--set={}", arguments.get(1).map_or("root", String::as_str)));
            words.extend(arguments.first().cloned());
            search(machine, &words)
        }
        "source" | "configfile" | "normal" | "." => match arguments.first() {
            Some(path) => machine.source(path),
            None => Ok(false),
        },
        "blscfg" => blscfg(machine),
        "linux" | "linux16" | "linuxefi" => linux(machine, arguments),
        "initrd" | "initrd16" | "initrdefi" => initrd(machine, arguments),
        "chainloader" | "multiboot" | "multiboot2" | "xen_hypervisor" | "kfreebsd" | "fwsetup" | "reboot"
        | "halt" => {
            machine.loaded.odd = Some(format!("{name} starts something else than a Linux kernel"));
            Ok(true)
        }
        _ => Ok(true),
    }
}

/// `load_env [-f FILE]`: variables that were saved.
fn load_env(machine: &mut Machine<'_>, arguments: &[String]) -> Result<bool, String> {
    let named =
        arguments.iter().position(|a| a == "-f" || a == "--file").and_then(|at| arguments.get(at + 1));
    let path = named.cloned().unwrap_or_else(|| format!("{}/grubenv", machine.variable("prefix")));
    let Some(file) = machine.locate(&path) else { return Ok(false) };
    let Ok(bytes) = machine.volumes.read_file(file.volume, &file.path, ENVIRONMENT) else { return Ok(false) };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    for (name, value) in text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once('=')) {
        if ONCE.contains(&name) && !value.is_empty() {
            machine.notes.push(format!("{name}={value} is not followed: it would be at every boot"));
            continue;
        }
        machine.set(name, value)?;
    }
    Ok(true)
}

/// What `search` looks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    File,
    Label,
    Uuid,
}

/// `search [--file|--label|--fs-uuid] [--set[=VARIABLE]] NAME`.
fn search(machine: &mut Machine<'_>, arguments: &[String]) -> Result<bool, String> {
    let (mut by, mut variable, mut name) = (By::File, None, None);
    for argument in arguments {
        match argument.as_str() {
            "--file" | "-f" => by = By::File,
            "--label" | "-l" | "--fs-label" => by = By::Label,
            "--fs-uuid" | "-u" => by = By::Uuid,
            "--set" | "-s" => variable = Some("root".to_owned()),
            other => match other.strip_prefix("--set=") {
                Some(given) => variable = Some(given.to_owned()),
                None if other.starts_with('-') => {}
                None => name = Some(other),
            },
        }
    }
    let Some(name) = name else { return Ok(false) };
    let found: Option<VolumeId> = match by {
        By::File => machine.volumes.by_file(&absolute("", name)),
        By::Label => machine.volumes.by_label(name),
        By::Uuid => machine.volumes.by_uuid(name),
    };
    match found {
        Some(volume) => {
            let device = machine.device_of(volume);
            machine.set(variable.as_deref().unwrap_or("root"), &device)?;
            Ok(true)
        }
        None => {
            let unread = machine.unread().map(|kind| format!(", and {kind} is not read")).unwrap_or_default();
            let note = format!("nothing on this disk is {name}{unread}");
            if !machine.notes.contains(&note) && machine.notes.len() < limits::ENTRIES {
                machine.notes.push(note);
            }
            Ok(false)
        }
    }
}

/// Entries of the Boot Loader Specification, on the root or on the partition of GRUB itself.
fn blscfg(machine: &mut Machine<'_>) -> Result<bool, String> {
    let prefix = machine.variable("prefix").to_owned();
    let (device, _) = prefix.trim_start_matches('(').split_once(')').unwrap_or_default();
    let devices = [machine.variable("root").to_owned(), device.to_owned()];
    for device in devices {
        let Some(volume) = super::device(machine.volumes, &device) else { continue };
        for folder in ["/loader/entries", "/boot/loader/entries"] {
            let variables = machine.variables.clone();
            let expand =
                |text: &str| substitute(text, |name| variables.get(name).cloned().unwrap_or_default());
            let mut notes = Vec::new();
            let found = bls::for_grub(machine.volumes, volume, folder, &expand, &mut notes)
                .map_err(|e| e.to_string())?;
            machine.notes.append(&mut notes);
            if !found.is_empty() {
                machine.offer_ready(found);
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Fills `$name` and `${name}` in.
fn substitute(text: &str, value: impl Fn(&str) -> String) -> String {
    let (mut result, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let (name, behind) = match after.strip_prefix('{').and_then(|a| a.split_once('}')) {
            Some((name, behind)) => (name, behind),
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        result.push_str(&if name.is_empty() { "$".to_owned() } else { value(name) });
        rest = behind;
        if result.len() > limits::COMMAND_LINE * 16 {
            return result;
        }
    }
    result + rest
}

fn linux(machine: &mut Machine<'_>, arguments: &[String]) -> Result<bool, String> {
    let Some((path, rest)) = arguments.split_first() else { return Ok(false) };
    let Some(file) = present(machine, path) else { return Ok(false) };
    machine.loaded.kernel = Some(file);
    machine.loaded.command_line = rest.join(" ");
    Ok(true)
}

fn initrd(machine: &mut Machine<'_>, arguments: &[String]) -> Result<bool, String> {
    let mut files = Vec::new();
    for path in arguments {
        let Some(file) = present(machine, path) else { return Ok(false) };
        files.push(file);
    }
    machine.loaded.initrds = files;
    Ok(true)
}

/// A file that is there; what is missing makes the entry one that cannot be booted.
fn present(machine: &mut Machine<'_>, path: &str) -> Option<FileRef> {
    let found = machine.locate(path).filter(|file| {
        machine.volumes.files(file.volume).is_some_and(|files| files.size(&file.path).is_some())
    });
    if found.is_none() {
        let unread = machine.unread().map(|kind| format!("; {kind} is not read")).unwrap_or_default();
        machine.loaded.odd = Some(format!("there is no file {path} on {}{unread}", machine.variable("root")));
    }
    found
}
