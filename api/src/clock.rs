//! `domain.clock`: what time the guest starts with and the timers it has.

use crate::schema::Status::{Libvirt, Only, Part, Planned, Refused, Works};

/// Ticks.
const TICKS: &str = "lost ticks are not made up for; remove it";

object! {
    "Clock and timers."
    Clock {
        utc "utc": Option<ClockUtc>, Works("As where absent: the guest's clock is in UTC."), "Clock in UTC.";
        timezone "timezone": Option<String>, Libvirt("the guest's clock is in UTC"), "Clock in a time zone.";
        timer "timer": Option<Timer>, Works(""), "Timers.";
    }

    "Clock in UTC."
    ClockUtc {
        offset_seconds "offsetSeconds": Option<i64>, Libvirt("the guest's clock is in UTC"), "Seconds off UTC.";
    }

    "Timers."
    Timer {
        hpet "hpet": Option<TickTimer>, Works("Absent from the guest: only `present: false`."), "High precision event timer.";
        kvm "kvm": Option<KvmTimer>, Works("Always there."), "KVM clock.";
        pit "pit": Option<TickTimer>, Works("Absent from the guest: only `present: false`."), "Programmable interval timer.";
        rtc "rtc": Option<RtcTimer>, Works("Always there."), "Real-time clock.";
        hyperv "hyperv": Option<HypervTimer>, Libvirt("there is no Hyper-V interface"), "Hyper-V clock.";
    }

    "A timer that ticks and is absent here."
    TickTimer {
        present "present": Option<bool>, Only(false, "the guest has no such timer"), "Whether it is there; yes where absent.";
        tick_policy "tickPolicy": Option<String>, Refused("the guest has no such timer"), "What becomes of lost ticks.";
    }

    "The KVM clock."
    KvmTimer {
        present "present": Option<bool>, Only(true, "the KVM clock is always there"), "Whether it is there; yes where absent.";
    }

    "The real-time clock."
    RtcTimer {
        present "present": Option<bool>, Only(true, "the real-time clock is always there"), "Whether it is there; yes where absent.";
        tick_policy "tickPolicy": Option<String>, Planned(TICKS), "What becomes of lost ticks.";
        track "track": Option<String>, Planned(TICKS), "Which time it follows.";
    }

    "The Hyper-V clock."
    HypervTimer {
        present "present": Option<bool>, Part, "Whether it is there; yes where absent.";
    }
}
