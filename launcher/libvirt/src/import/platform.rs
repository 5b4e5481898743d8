//! Features of the platform, Hyper-V's interface, clock and timers, and what ends of the guest do.

use pinion_api::{
    AcpiFeature, ApicFeature, Clock, ClockUtc, FeatureState, Features, Hyperv, HypervPassthrough,
    HypervSpinlocks, HypervSynicTimer, HypervTimer, HypervTlbFlush, HypervVendorId, InstanceSpec, KvmFeature,
    KvmTimer, RebootPolicy, RtcTimer, SmmFeature, TickTimer, Timer,
};

use super::source::{Part, quoted};

pub(super) fn platform(domain: Part<'_>, spec: &mut InstanceSpec) {
    features(domain, spec);
    clock(domain, spec);
    ends(domain, spec);
}

fn features(domain: Part<'_>, spec: &mut InstanceSpec) {
    let mut own = Features::default();
    let features = domain.child("features");
    features.unwrap_or(domain).gives("spec.domain.features");
    if !features.is_some_and(|f| f.has("acpi")) {
        own.acpi = Some(AcpiFeature { enabled: Some(false) });
    }
    if let Some(features) = features {
        // Guests have it in any case.
        features.has("pae");
        own.apic = features.child("apic").and_then(|apic| {
            apic.gives("spec.domain.features.apic");
            apic.switch("eoi").map(|on| ApicFeature { end_of_interrupt: Some(on), ..ApicFeature::default() })
        });
        own.smm = features.child("smm").map(|smm| {
            smm.gives("spec.domain.features.smm");
            SmmFeature { enabled: Some(smm.switch("state").unwrap_or(true)) }
        });
        own.kvm = features.child("kvm").and_then(kvm);
        own.pvspinlock = features.child("pvspinlock").map(state);
        if let Some(element) = features.child("hyperv") {
            element.gives("spec.domain.features.hyperv");
            if element.attribute("mode") == Some("passthrough") {
                own.hyperv_passthrough = Some(HypervPassthrough::default());
            } else {
                let hyperv = hyperv(element);
                own.hyperv = (hyperv != Hyperv::default()).then_some(hyperv);
            }
        }
    }
    spec.domain.features = (own != Features::default()).then_some(own);
}

fn kvm(element: Part<'_>) -> Option<KvmFeature> {
    let hidden = element.child("hidden")?.switch("state")?;
    hidden.then_some(KvmFeature { hidden: Some(true) })
}

/// `false` where it says so; a feature that is named is on.
fn switched_off(element: Part<'_>) -> Option<bool> {
    element.switch("state").filter(|on| !*on)
}

fn state(element: Part<'_>) -> FeatureState {
    FeatureState { enabled: switched_off(element) }
}

fn hyperv(element: Part<'_>) -> Hyperv {
    let plain = |name: &str| element.child(name).map(state);
    Hyperv {
        relaxed: plain("relaxed"),
        vapic: plain("vapic"),
        vpindex: plain("vpindex"),
        runtime: plain("runtime"),
        synic: plain("synic"),
        reset: plain("reset"),
        frequencies: plain("frequencies"),
        reenlightenment: plain("reenlightenment"),
        ipi: plain("ipi"),
        evmcs: plain("evmcs"),
        spinlocks: element.child("spinlocks").map(|locks| HypervSpinlocks {
            enabled: switched_off(locks),
            spinlocks: locks.number("retries"),
        }),
        synictimer: element.child("stimer").map(|timer| HypervSynicTimer {
            enabled: switched_off(timer),
            direct: timer.child("direct").map(state),
        }),
        tlbflush: element
            .child("tlbflush")
            .map(|flush| HypervTlbFlush { enabled: switched_off(flush), ..HypervTlbFlush::default() }),
        vendorid: element.child("vendor_id").map(|vendor| HypervVendorId {
            enabled: switched_off(vendor),
            vendorid: vendor.attribute("value").map(str::to_owned),
        }),
    }
}

fn clock(domain: Part<'_>, spec: &mut InstanceSpec) {
    let Some(element) = domain.child("clock") else { return };
    element.gives("spec.domain.clock");
    let mut clock = Clock::default();
    match element.attribute("offset") {
        None | Some("utc") => {
            element.attribute("adjustment");
        }
        Some("timezone") => clock.timezone = element.attribute("timezone").map(str::to_owned),
        Some("variable") if element.attribute("basis").unwrap_or("utc") == "utc" => {
            let seconds = element.number::<i64>("adjustment").filter(|seconds| *seconds != 0);
            clock.utc = seconds.map(|seconds| ClockUtc { offset_seconds: Some(seconds) });
        }
        Some(other) => {
            element.note(format!(
                "offset {}: the guest's clock starts in UTC; for a guest that expects local time, as Windows does, give \
                 domain.clock.timezone, such as Europe/Berlin",
                quoted(other)
            ));
            // What it was off by goes with it.
            let _ = (element.attribute("adjustment"), element.attribute("basis"), element.attribute("start"));
        }
    }
    let timer = timers(element);
    clock.timer = (timer != Timer::default()).then_some(timer);
    spec.domain.clock = (clock != Clock::default()).then_some(clock);
}

fn timers(clock: Part<'_>) -> Timer {
    let mut timers = Timer::default();
    for element in clock.children("timer") {
        let present = element.switch("present");
        let policy = || element.attribute("tickpolicy").map(str::to_owned);
        let field = match element.attribute("name") {
            Some("hpet") => {
                timers.hpet = Some(TickTimer { present, tick_policy: policy() });
                "hpet"
            }
            Some("pit") => {
                timers.pit = Some(TickTimer { present, tick_policy: policy() });
                "pit"
            }
            Some("rtc") => {
                let track = element.attribute("track").map(str::to_owned);
                timers.rtc = Some(RtcTimer { present, tick_policy: policy(), track });
                "rtc"
            }
            Some("kvmclock") => {
                timers.kvm = Some(KvmTimer { present });
                "kvm"
            }
            Some("hypervclock") => {
                timers.hyperv = Some(HypervTimer { present });
                "hyperv"
            }
            other => {
                element.leave(format!(
                    "timer {}: not carried over: the spec has no such timer",
                    quoted(other.unwrap_or(""))
                ));
                continue;
            }
        };
        element.gives(format!("spec.domain.clock.timer.{field}"));
    }
    timers
}

/// What happens when the guest powers off, reboots or crashes.
fn ends(domain: Part<'_>, spec: &mut InstanceSpec) {
    for (name, usual) in [("on_poweroff", "destroy"), ("on_crash", "destroy")] {
        if let Some(end) = domain.child(name).filter(|end| end.text() != usual) {
            end.note(format!(
                "{}: a guest that ends is gone, and whoever started it is told",
                quoted(end.text())
            ));
        }
    }
    let Some(reboot) = domain.child("on_reboot") else { return };
    reboot.gives("spec.domain.rebootPolicy");
    match reboot.text() {
        "restart" => {}
        "destroy" => spec.domain.reboot_policy = Some(RebootPolicy::Terminate),
        other => reboot.note(format!("{}: a reboot starts the guest again in place", quoted(other))),
    }
}
