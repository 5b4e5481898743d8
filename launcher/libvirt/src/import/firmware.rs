//! How the guest boots, and what its SMBIOS tables say.

use std::path::{Path, PathBuf};

use pinion_api::{
    Bios, Bootloader, Chassis, Efi, Firmware, InstanceSpec, KernelBoot, KernelBootContainer, Machine,
};
use pinion_launcher::CONSOLE_ARGUMENT;

use super::Fault;
use super::source::{Part, quoted};

/// The machine where a spec names none.
const MACHINE: &str = "q35";

pub(super) fn os(domain: Part<'_>, spec: &mut InstanceSpec) {
    let Some(os) = domain.child("os") else {
        domain.fault(|path| Fault::Missing { path, what: "os" });
        return;
    };
    os.gives("spec.domain.firmware");
    machine(os, spec);
    let mut firmware = spec.domain.firmware.take().unwrap_or_default();
    firmware.bootloader = loader(os);
    firmware.kernel_boot = kernel(os);
    tables(domain, os, spec, &mut firmware);
    spec.domain.firmware = (firmware != Firmware::default()).then_some(firmware);
}

fn machine(os: Part<'_>, spec: &mut InstanceSpec) {
    let Some(kind) = os.child("type") else {
        os.fault(|path| Fault::Missing { path, what: "type" });
        return;
    };
    let refuse = |what: String| kind.fault(|path| Fault::Unsupported { path, what });
    match kind.text() {
        "hvm" => {}
        other => refuse(format!("{} is no guest that has a machine of its own (hvm)", quoted(other))),
    }
    match kind.attribute("arch") {
        None | Some("x86_64") => {}
        Some("i686") => kind.note_attribute("arch", "the CPU is a 64-bit one, which runs 32-bit systems too"),
        Some(other) => refuse(format!("{} guests are not run, only x86_64", quoted(other))),
    }
    if let Some(machine) = kind.attribute("machine").filter(|machine| *machine != MACHINE) {
        kind.gives("spec.domain.machine");
        spec.domain.machine = Some(Machine { kind: Some(machine.to_owned()) });
    }
}

fn loader(os: Part<'_>) -> Option<Bootloader> {
    let firmware = os.attribute("firmware");
    let loader = os.child("loader");
    let flash = loader.is_some_and(|l| l.attribute("type") == Some("pflash"));
    if let Some(loader) = loader {
        loader.gives("spec.domain.firmware.bootloader");
        // How the host's firmware is mapped is libvirt's.
        let _ = (loader.attribute("readonly"), loader.attribute("format"));
        if !loader.text().is_empty() {
            let file = quoted(loader.text());
            loader.note(format!("{file}: the firmware is one of this host, found by what it can do"));
        }
    }
    if firmware == Some("efi") || flash {
        return Some(Bootloader { efi: Some(efi(os, loader)), ..Bootloader::default() });
    }
    os.child("nvram").inspect(|nvram| nvram.leave("the guest has no EFI variables"));
    let use_serial = os.child("bios")?.switch("useserial")?;
    Some(Bootloader { bios: Some(Bios { use_serial: Some(use_serial) }), ..Bootloader::default() })
}

fn efi(os: Part<'_>, loader: Option<Part<'_>>) -> Efi {
    let mut secure = loader.and_then(|l| l.switch("secure"));
    let mut enrolled = None;
    for feature in os.child("firmware").into_iter().flat_map(|f| f.children("feature")) {
        let enabled = feature.switch("enabled");
        match feature.attribute("name") {
            Some("secure-boot") => secure = enabled,
            Some("enrolled-keys") => enrolled = enabled,
            _ => feature.note("not carried over: the spec has no such feature of firmware"),
        }
    }
    // A firmware that can enforce signatures enforces none until keys are in it.
    let on = secure.unwrap_or(false) && enrolled != Some(false);
    if secure == Some(true) && enrolled == Some(false) {
        os.note("secure boot without enrolled keys checks no signature: secureBoot is false");
    }
    if secure.is_none() {
        os.note("it does not say whether the firmware checks signatures: secureBoot is false; set it to true if it did");
    }
    if let Some(nvram) = os.child("nvram") {
        nvram.leave(format!(
            "the EFI variables in {} are not carried over: they are new at each start, without the boot entries that the \
             guest made; see that its disk has \\EFI\\BOOT\\BOOTX64.EFI, which is booted without an entry",
            quoted(nvram.text())
        ));
    }
    Efi { secure_boot: Some(on), ..Efi::default() }
}

/// A kernel of the host; the image is the folder that both files are in.
fn kernel(os: Part<'_>) -> Option<KernelBoot> {
    let kernel = os.child("kernel")?;
    kernel.gives("spec.domain.firmware.kernelBoot");
    let initrd = os.child("initrd");
    let file = |part: Part<'_>| -> Option<PathBuf> {
        let path = PathBuf::from(part.text());
        if path.is_absolute() {
            return Some(path);
        }
        part.fault(|path| Fault::Malformed { path, text: quoted(part.text()), what: "absolute path" });
        None
    };
    let kernel_file = file(kernel)?;
    let initrd_file = initrd.and_then(file);
    let mut folder = kernel_file.parent().unwrap_or(Path::new("/"));
    while let (Some(initrd), Some(above)) = (&initrd_file, folder.parent())
        && !initrd.starts_with(folder)
    {
        folder = above;
    }
    let inside = |file: &Path| file.strip_prefix(folder).ok().map(|inside| inside.display().to_string());
    let arguments = os.child("cmdline").map(|element| element.text());
    let arguments = arguments.map(|text| text.strip_prefix(CONSOLE_ARGUMENT).map_or(text, str::trim_start));
    kernel.note("it is read from this host each time the guest starts: copy it here, with its initrd");
    Some(KernelBoot {
        kernel_args: arguments.filter(|text| !text.is_empty()).map(str::to_owned),
        container: Some(KernelBootContainer {
            image: format!("file://{}", folder.display()),
            kernel_path: inside(&kernel_file),
            initrd_path: initrd_file.as_deref().and_then(inside),
            ..KernelBootContainer::default()
        }),
    })
}

/// What the SMBIOS tables say, where the guest is shown them.
fn tables(domain: Part<'_>, os: Part<'_>, spec: &mut InstanceSpec, firmware: &mut Firmware) {
    let mode = os.child("smbios").and_then(|smbios| smbios.attribute("mode"));
    if mode == Some("host") {
        os.note("the guest saw the host's SMBIOS tables: it has its own");
    }
    for tables in domain.children("sysinfo") {
        if tables.attribute("type") != Some("smbios") {
            tables.leave("not carried over: no files are given to the firmware");
        } else if mode == Some("sysinfo") {
            tables.gives("spec.domain.chassis");
            system(tables, firmware);
            chassis(tables, spec);
        } else {
            tables.leave("not carried over: without <smbios mode='sysinfo'/> the guest does not see it");
        }
    }
}

fn system(tables: Part<'_>, firmware: &mut Firmware) {
    for entry in tables.child("system").into_iter().flat_map(|system| system.children("entry")) {
        match entry.attribute("name") {
            Some("serial") => {
                entry.gives("spec.domain.firmware.serial");
                firmware.serial = Some(entry.text().to_owned());
            }
            // libvirt has it equal to that of the guest.
            Some("uuid") => {}
            _ => {
                entry.note(format!("{}: not carried over: the spec has nothing for it", quoted(entry.text())))
            }
        }
    }
}

fn chassis(tables: Part<'_>, spec: &mut InstanceSpec) {
    for entry in tables.child("chassis").into_iter().flat_map(|chassis| chassis.children("entry")) {
        let own = spec.domain.chassis.get_or_insert_with(Chassis::default);
        let field = match entry.attribute("name") {
            Some("manufacturer") => &mut own.manufacturer,
            Some("version") => &mut own.version,
            Some("serial") => &mut own.serial,
            Some("asset") => &mut own.asset,
            Some("sku") => &mut own.sku,
            _ => {
                entry.note("not carried over: the spec has nothing for it");
                continue;
            }
        };
        *field = Some(entry.text().to_owned());
    }
}
