//! What people look at and touch: graphics with VNC, pointers, keyboards, sound.

use pinion_api::{Devices, Input};

use super::super::Assets;
use crate::xml::Element;

/// File of the VNC server's socket.
const VNC: &str = "vnc.sock";

pub(super) fn desktop(own: &Devices, assets: &Assets) -> Vec<Element> {
    let mut devices = Vec::new();
    if own.autoattach_graphics_device == Some(true) || own.video.is_some() {
        let socket = assets.sockets.join(VNC);
        let listen = Element::new("listen").with("type", "socket").with("socket", socket.display());
        devices.push(Element::new("graphics").with("type", "vnc").and(listen));
        let model = own.video.as_ref().and_then(|v| v.kind.as_deref()).unwrap_or("vga");
        devices.push(Element::new("video").and(Element::new("model").with("type", model)));
    } else {
        devices.push(Element::new("video").and(Element::new("model").with("type", "none")));
    }
    if own.autoattach_input_device == Some(true) && own.inputs.is_empty() {
        devices.push(Element::new("input").with("type", "tablet").with("bus", "usb"));
    }
    devices.extend(own.inputs.iter().map(input));
    devices.extend(
        own.sound
            .as_ref()
            .map(|sound| Element::new("sound").with("model", sound.model.as_deref().unwrap_or("ich9"))),
    );
    devices
}

fn input(input: &Input) -> Element {
    let bus = input.bus.as_deref().unwrap_or("usb");
    Element::new("input").with("type", &input.kind).with("bus", bus)
}
