//! Switches of the kernel that reach dedicated CPUs: what each removes, whether it does now, and what is missing.

use pinion_node_agent::Knob;

use super::{Check, KernelFiles};

/// One check for each switch, the kernel's preemption model, and unbound work.
pub(crate) fn checks(files: &KernelFiles) -> Vec<Check> {
    // Those that other checks are about already.
    let told = [Knob::NumaBalancing, Knob::SamePageMerging, Knob::RealtimeThrottling];
    let knobs = Knob::ALL.into_iter().filter(|k| !told.contains(k));
    let mut checks: Vec<Check> = knobs.map(|k| knob(files, k)).collect();
    checks.push(workqueues(files));
    checks.push(preemption(files));
    checks
}

fn knob(files: &KernelFiles, knob: Knob) -> Check {
    let name = knob.short_name();
    let Some(now) = files.text(knob.file()) else { return Check::holds(name, "not in this kernel") };
    let wanted = knob.wanted(&now, true);
    if wanted == now {
        return Check::holds(name, format!("{now}: spares dedicated CPUs {}", knob.removes()));
    }
    Check::lacks(
        name,
        format!("{now}, and dedicated CPUs need {wanted} to be spared {}", knob.removes()),
        format!(
            "nothing: it is set while a guest with dedicated CPUs runs (for good: `echo {wanted} | sudo tee /{}`)",
            knob.file()
        ),
    )
}

fn workqueues(files: &KernelFiles) -> Check {
    const NAME: &str = "workqueues";
    let isolated = files.cpus("sys/devices/system/cpu/isolated");
    let mask = files.text("sys/devices/virtual/workqueue/cpumask");
    let Some(cpus) = mask.as_deref().and_then(pinion_interrupts::parse_mask) else {
        return Check::holds(NAME, "not in this kernel");
    };
    let both = cpus.intersection(&isolated);
    if both.is_empty() {
        return Check::holds(NAME, format!("unbound work runs on CPUs {cpus}"));
    }
    Check::lacks(
        NAME,
        format!("unbound work of the kernel may run on isolated CPUs {both}"),
        "nothing: it is kept off dedicated CPUs while their guest runs",
    )
}

/// `uname -v` says how the kernel was built (`init/Makefile`).
fn preemption(files: &KernelFiles) -> Check {
    const NAME: &str = "preemption";
    let version = files.text("proc/sys/kernel/version").unwrap_or_default();
    if version.contains("PREEMPT_RT") {
        return Check::holds(NAME, "PREEMPT_RT: real-time vCPUs preempt almost everything");
    }
    let model = version.split_whitespace().find(|w| w.starts_with("PREEMPT")).unwrap_or("voluntary or none");
    Check::holds(
        NAME,
        format!("{model}: the kernel may keep a CPU for a while; a real-time kernel (linux-image-rt) less"),
    )
}
