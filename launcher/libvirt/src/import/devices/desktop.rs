//! What people look at and touch: graphics, pointers, keyboards, sound.

use pinion_api::{Input, InstanceSpec, Sound, Video};

use super::super::identity::Names;
use super::super::source::{Part, quoted};
use super::MOST;

pub(super) fn desktop(devices: Part<'_>, names: &mut Names, spec: &mut InstanceSpec) {
    let own = &mut spec.domain.devices;
    let screens: Vec<Part<'_>> = devices.children("graphics").take(MOST).collect();
    if let Some(first) = screens.first() {
        first.gives("spec.domain.devices.autoattachGraphicsDevice");
        own.autoattach_graphics_device = Some(true);
    }
    for screen in screens {
        let kind = screen.attribute("type").unwrap_or_default();
        screen.leave(format!(
            "{}: the guest has a VNC server on a socket of this host, whatever was served before, and where",
            quoted(kind)
        ));
    }
    own.video = video(devices, own.autoattach_graphics_device == Some(true));
    for element in devices.children("input").take(MOST) {
        if let Some(input) = input(element, names) {
            element.gives(format!("spec.domain.devices.inputs[{}]", own.inputs.len()));
            own.inputs.push(input);
        }
    }
    own.sound = devices.child("sound").map(|element| sound(element, names));
}

/// The first; without a screen to see it on, it brings one.
fn video(devices: Part<'_>, on_screen: bool) -> Option<Video> {
    let element = devices.child("video")?;
    element.gives("spec.domain.devices.video");
    element.skip("address");
    let model = element.child("model")?;
    let kind = model.attribute("type").filter(|kind| *kind != "none")?;
    model.leave(format!("{}: its memory and its heads are those that QEMU gives it", quoted(kind)));
    if !on_screen {
        element.note("a VNC server comes with it, on a socket of this host");
    }
    Some(Video { kind: Some(kind.to_owned()) })
}

fn input(element: Part<'_>, names: &mut Names) -> Option<Input> {
    let kind = element.attribute("type").unwrap_or_default();
    element.skip_place();
    match (kind, element.attribute("bus").unwrap_or("ps2")) {
        // Every machine has them.
        ("keyboard" | "mouse", "ps2") => None,
        ("tablet" | "keyboard", bus @ ("usb" | "virtio")) => {
            Some(Input { name: names.take(kind), kind: kind.to_owned(), bus: Some(bus.to_owned()) })
        }
        (kind, bus) => {
            element.leave(format!(
                "not carried over: an input {} on {}; there are tablets and keyboards, on usb or virtio",
                quoted(kind),
                quoted(bus)
            ));
            None
        }
    }
}

fn sound(element: Part<'_>, names: &mut Names) -> Sound {
    element.gives("spec.domain.devices.sound");
    element.skip_place();
    let model = match element.attribute("model").unwrap_or_default() {
        known @ ("ich9" | "ac97") => known,
        other => {
            element.note_attribute("model", format!("{}: the guest has an ich9 instead", quoted(other)));
            "ich9"
        }
    };
    Sound { name: names.take("sound"), model: Some(model.to_owned()) }
}
