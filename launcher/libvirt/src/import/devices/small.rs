//! Devices of which there is one or none, and that have little to say.

use pinion_api::{Devices, InstanceSpec, PanicDevice, Rng, Tpm, Watchdog, WatchdogDevice};

use super::super::identity::Names;
use super::super::source::{Part, quoted};
use super::MOST;

/// Name of the guest agent's channel. Source: QEMU's documentation of the guest agent.
const AGENT: &str = "org.qemu.guest_agent.0";
/// Files of the host's generator.
const GENERATORS: [&str; 3] = ["/dev/urandom", "/dev/random", "/dev/hwrng"];

pub(super) fn small(devices: Part<'_>, names: &mut Names, spec: &mut InstanceSpec) {
    let own = &mut spec.domain.devices;
    own.rng = devices.child("rng").map(rng);
    own.tpm = devices.child("tpm").map(tpm);
    for element in devices.children("watchdog").take(MOST) {
        if let Some(watchdog) = watchdog(element, names) {
            element.gives("spec.domain.devices.watchdog");
            own.watchdog = Some(watchdog);
        }
    }
    if let Some(balloon) = devices.child("memballoon") {
        balloon.gives("spec.domain.devices.autoattachMemBalloon");
        let some = balloon.attribute("model") != Some("none");
        balloon.whole();
        own.autoattach_mem_balloon = some.then_some(true);
    }
    for element in devices.children("panic").take(MOST) {
        element.gives(format!("spec.domain.devices.panicDevices[{}]", own.panic_devices.len()));
        element.skip("address");
        let model = element.attribute("model").map(str::to_owned);
        own.panic_devices.push(PanicDevice { model });
    }
    if let Some(vsock) = devices.child("vsock") {
        vsock.gives("spec.domain.devices.autoattachVSOCK");
        vsock.whole();
        own.autoattach_vsock = Some(true);
    }
    serial(devices, own);
    channels(devices);
}

fn rng(element: Part<'_>) -> Rng {
    element.gives("spec.domain.devices.rng");
    element.skip_place();
    element.attribute("model");
    if let Some(backend) = element.child("backend") {
        let of_host = backend.attribute("model") == Some("random") && GENERATORS.contains(&backend.text());
        if !of_host {
            backend.leave("the guest's generator is fed by the host's, whatever fed it before");
        }
    }
    Rng {}
}

fn tpm(element: Part<'_>) -> Tpm {
    element.gives("spec.domain.devices.tpm");
    element.skip_place();
    if let Some(model) = element.attribute("model").filter(|model| *model != "tpm-crb") {
        element.note_attribute("model", format!("{}: the guest sees \"tpm-crb\"", quoted(model)));
    }
    let backend = element.child("backend");
    for (name, own) in [("type", "emulator"), ("version", "2.0")] {
        if let Some(backend) = backend
            && let Some(other) = backend.attribute(name).filter(|value| *value != own)
        {
            backend.note_attribute(name, format!("{}: it is {own:?}, with nothing in it yet", quoted(other)));
        }
    }
    let persistent = backend.and_then(|backend| backend.switch("persistent_state"));
    Tpm { persistent, ..Tpm::default() }
}

fn watchdog(element: Part<'_>, names: &mut Names) -> Option<Watchdog> {
    element.skip_place();
    if element.attribute("model") != Some("i6300esb") {
        let model = quoted(element.attribute("model").unwrap_or_default());
        element.leave(format!("not carried over: the watchdog {model}; there is an i6300esb only"));
        return None;
    }
    let action = match element.attribute("action") {
        None => None,
        Some(known @ ("reset" | "poweroff" | "shutdown")) => Some(known.to_owned()),
        Some(other) => {
            element.note_attribute("action", format!("{}: it resets the guest", quoted(other)));
            None
        }
    };
    let i6300esb = Some(WatchdogDevice { action });
    Some(Watchdog { name: names.take("watchdog"), i6300esb, ..Watchdog::default() })
}

/// The first port is the console; wherever it led to, it leads to the launcher now.
fn serial(devices: Part<'_>, own: &mut Devices) {
    let mut ports = devices.children("serial").take(MOST);
    let is_there = consoles(devices);
    let Some(first) = ports.next() else {
        if !is_there {
            devices.gives("spec.domain.devices.autoattachSerialConsole");
            own.autoattach_serial_console = Some(false);
        }
        return;
    };
    first.whole();
    let kind = first.attribute("type").unwrap_or("pty");
    if kind != "pty" || first.child("log").is_some() {
        first.note(format!(
            "{}: the serial console is shown by pinion console, and kept by pinion logs",
            quoted(kind)
        ));
    }
    for port in ports {
        port.leave("not carried over: there is one serial port");
    }
}

/// Whether one is on the serial port: libvirt makes the port then.
fn consoles(devices: Part<'_>) -> bool {
    let mut on_port = false;
    for console in devices.children("console").take(MOST) {
        let kind = console.below("target", "type").unwrap_or("serial");
        if kind == "serial" {
            on_port = true;
            console.whole();
        } else {
            console.leave(format!(
                "not carried over: a console on {}; the console is the serial port",
                quoted(kind)
            ));
        }
    }
    on_port
}

fn channels(devices: Part<'_>) {
    for channel in devices.children("channel").take(MOST) {
        let name = channel.below("target", "name").unwrap_or_default();
        if name == AGENT {
            channel.whole();
        } else {
            channel.leave(format!(
                "not carried over: the channel {}; there is that of the guest agent only",
                quoted(name)
            ));
        }
    }
}
