//! Features of the platform, Hyper-V's interface, clock and timers.

use pinion_api::{FeatureState, Features, Hyperv, InstanceSpec, RebootPolicy, Timer};

use super::{on_off, yes_no};
use crate::xml::Element;

pub(super) fn on_reboot(spec: &InstanceSpec) -> &'static str {
    match spec.domain.reboot_policy {
        Some(RebootPolicy::Terminate) => "destroy",
        _ => "restart",
    }
}

pub(super) fn features(spec: &InstanceSpec) -> Element {
    let empty = Features::default();
    let own = spec.domain.features.as_ref().unwrap_or(&empty);
    let efi = spec.domain.firmware.as_ref().and_then(|f| f.bootloader.as_ref()).and_then(|l| l.efi.as_ref());
    let secure = efi.is_some_and(|efi| efi.secure_boot.unwrap_or(true));
    let mut features = Element::new("features");
    if own.acpi.as_ref().is_none_or(|f| f.enabled != Some(false)) {
        features = features.and(Element::new("acpi"));
    }
    let apic = own.apic.as_ref();
    if apic.is_none_or(|f| f.enabled != Some(false)) {
        let eoi = apic.and_then(|f| f.end_of_interrupt).map(on_off);
        features = features.and(Element::new("apic").with_some("eoi", eoi));
    }
    let smm = own.smm.as_ref().map(|f| f.enabled != Some(false));
    if let Some(on) = smm.or(secure.then_some(true)) {
        features = features.and(Element::new("smm").with("state", on_off(on)));
    }
    if own.kvm.as_ref().is_some_and(|f| f.hidden == Some(true)) {
        features = features.and(Element::new("kvm").and(Element::new("hidden").with("state", "on")));
    }
    if own.hyperv_passthrough.as_ref().is_some_and(|f| f.enabled != Some(false)) {
        features = features.and(Element::new("hyperv").with("mode", "passthrough"));
    } else if let Some(hyperv) = &own.hyperv {
        features = features.and(enlightenments(hyperv));
    }
    if let Some(spin) = &own.pvspinlock {
        features = features.and(Element::new("pvspinlock").with("state", state(Some(spin))));
    }
    features
}

fn state(feature: Option<&FeatureState>) -> &'static str {
    on_off(feature.is_none_or(|f| f.enabled != Some(false)))
}

fn enlightenments(hyperv: &Hyperv) -> Element {
    let plain = [
        ("relaxed", &hyperv.relaxed),
        ("vapic", &hyperv.vapic),
        ("vpindex", &hyperv.vpindex),
        ("runtime", &hyperv.runtime),
        ("synic", &hyperv.synic),
        ("reset", &hyperv.reset),
        ("frequencies", &hyperv.frequencies),
        ("reenlightenment", &hyperv.reenlightenment),
        ("ipi", &hyperv.ipi),
        ("evmcs", &hyperv.evmcs),
    ];
    let mut element = Element::new("hyperv").with("mode", "custom");
    for (name, feature) in plain {
        element = element.and_all(feature.as_ref().map(|f| Element::new(name).with("state", state(Some(f)))));
    }
    if let Some(locks) = &hyperv.spinlocks {
        let on = locks.enabled != Some(false);
        let retries = on.then(|| locks.spinlocks.unwrap_or(4096));
        element =
            element.and(Element::new("spinlocks").with("state", on_off(on)).with_some("retries", retries));
    }
    if let Some(timer) = &hyperv.synictimer {
        let direct = timer.direct.as_ref().map(|d| Element::new("direct").with("state", state(Some(d))));
        let on = on_off(timer.enabled != Some(false));
        element = element.and(Element::new("stimer").with("state", on).and_all(direct));
    }
    if let Some(flush) = &hyperv.tlbflush {
        element = element.and(Element::new("tlbflush").with("state", on_off(flush.enabled != Some(false))));
    }
    if let Some(vendor) = &hyperv.vendorid {
        let on = on_off(vendor.enabled != Some(false));
        element = element
            .and(Element::new("vendor_id").with("state", on).with_some("value", vendor.vendorid.as_ref()));
    }
    element
}

pub(super) fn clock(spec: &InstanceSpec) -> Element {
    let own = spec.domain.clock.as_ref();
    let offset = own.and_then(|c| c.utc.as_ref()).and_then(|u| u.offset_seconds).filter(|s| *s != 0);
    let clock = match (own.and_then(|c| c.timezone.as_ref()), offset) {
        (Some(zone), _) => Element::new("clock").with("offset", "timezone").with("timezone", zone),
        (None, Some(seconds)) => {
            Element::new("clock").with("offset", "variable").with("adjustment", seconds).with("basis", "utc")
        }
        (None, None) => Element::new("clock").with("offset", "utc"),
    };
    match own.and_then(|c| c.timer.as_ref()) {
        Some(timer) => clock.and_all(timers(timer)),
        None => clock,
    }
}

fn timers(timer: &Timer) -> Vec<Element> {
    let element = |name: &str, present: Option<bool>| {
        Element::new("timer").with("name", name).with("present", yes_no(present != Some(false)))
    };
    let mut timers = Vec::new();
    for (name, tick) in [("hpet", &timer.hpet), ("pit", &timer.pit)] {
        timers.extend(
            tick.as_ref().map(|t| element(name, t.present).with_some("tickpolicy", t.tick_policy.as_ref())),
        );
    }
    timers.extend(timer.rtc.as_ref().map(|t| {
        let element = element("rtc", t.present).with_some("tickpolicy", t.tick_policy.as_ref());
        element.with_some("track", t.track.as_ref())
    }));
    timers.extend(timer.kvm.as_ref().map(|t| element("kvmclock", t.present)));
    timers.extend(timer.hyperv.as_ref().map(|t| element("hypervclock", t.present)));
    timers
}
