//! vCPUs: how many, in what shape, and what CPU they look like.

use pinion_api::{Cpu, CpuFeature, InstanceSpec};

use super::Fault;
use super::source::{Part, quoted};

/// Most features that are read: no CPU has more.
const MOST_FEATURES: usize = 1024;

/// Count, shape, model and features.
pub(super) fn cpu(domain: Part<'_>, spec: &mut InstanceSpec) {
    let Some(vcpu) = domain.child("vcpu") else {
        domain.fault(|path| Fault::Missing { path, what: "vcpu" });
        return;
    };
    vcpu.gives("spec.domain.cpu");
    let element = domain.child("cpu");
    let mut cpu = Cpu { sockets: Some(1), cores: Some(1), threads: Some(1), ..Cpu::default() };
    if let Some((most, now)) = counts(vcpu) {
        let topology = element.and_then(|e| e.child("topology"));
        match topology.filter(|_| now == most) {
            Some(topology) => shape(topology, most, &mut cpu),
            // libvirt makes a socket of each vCPU where nothing is said.
            None if now == most => cpu.sockets = Some(now),
            None => {
                vcpu.note(format!(
                    "CPUs are not hot-plugged: the guest has the {now} it has now, not {most}, as cores of one socket"
                ));
                topology.inspect(Part::whole);
                cpu.cores = Some(now);
            }
        }
    }
    match element {
        Some(element) => {
            element.gives("spec.domain.cpu");
            model(element, &mut cpu);
            cpu.features = element.children("feature").take(MOST_FEATURES).filter_map(feature).collect();
        }
        None => vcpu.note(UNNAMED),
    }
    spec.domain.cpu = Some(cpu);
}

const UNNAMED: &str = "no CPU model is given, which was QEMU's own (qemu64): the guest sees the host's CPU; name one in domain.cpu.model";

/// How many there can be, and how many there are.
fn counts(vcpu: Part<'_>) -> Option<(u32, u32)> {
    let text = vcpu.text();
    let most = text.parse::<u32>().ok().filter(|count| *count > 0);
    let Some(most) = most else {
        vcpu.fault(|path| Fault::Malformed { path, text: quoted(text), what: "number of vCPUs" });
        return None;
    };
    let now = vcpu.number::<u32>("current").filter(|now| (1..=most).contains(now)).unwrap_or(most);
    if let Some(cpus) = vcpu.attribute("cpuset") {
        vcpu.note_attribute("cpuset", format!("{}: {ANEW}", quoted(cpus)));
    }
    if vcpu.attribute("placement") == Some("auto") {
        vcpu.note_attribute("placement", ANEW);
    }
    Some((most, now))
}

/// What becomes of the numbers of the host's CPUs and nodes.
pub(super) const ANEW: &str = "the host's CPUs and nodes are planned anew";

fn shape(topology: Part<'_>, vcpus: u32, cpu: &mut Cpu) {
    let count = |name| match topology.number::<u32>(name) {
        Some(0) => {
            topology.fault(|path| Fault::Malformed { path, text: format!("{name} 0"), what: "number" });
            1
        }
        count => count.unwrap_or(1),
    };
    let (sockets, cores, threads) = (count("sockets"), count("cores"), count("threads"));
    let groups = count("dies").saturating_mul(count("clusters"));
    if groups > 1 {
        topology
            .note(format!("a guest's sockets have no dies or clusters: the cores of {groups} are in one"));
    }
    let cores = cores.saturating_mul(groups);
    let total = sockets.saturating_mul(cores).saturating_mul(threads);
    if total == vcpus {
        (cpu.sockets, cpu.cores, cpu.threads) = (Some(sockets), Some(cores), Some(threads));
    } else {
        let what =
            format!("{sockets} sockets × {cores} cores × {threads} threads are {total}, not {vcpus} vCPUs");
        topology.fault(|path| Fault::Unsupported { path, what });
    }
}

fn model(element: Part<'_>, cpu: &mut Cpu) {
    // It is about the host that the guest came from.
    element.attribute("check");
    element.attribute("migratable");
    let model = element.child("model");
    let named = model.map(|m| m.text()).filter(|name| !name.is_empty());
    let matched = element.attribute("match");
    let mode = element.attribute("mode").or(matched.or(named).map(|_| "custom"));
    cpu.model = match mode {
        Some("host-passthrough") => Some("host-passthrough".to_owned()),
        Some("host-model") => Some("host-model".to_owned()),
        Some("maximum") => {
            element.note_attribute(
                "mode",
                "the guest sees the host's CPU: what QEMU would add by emulation is left out",
            );
            Some("host-passthrough".to_owned())
        }
        Some("custom") if named.is_some() => named.map(str::to_owned),
        Some(other) => {
            let what = format!("{} is no mode with a model", quoted(other));
            element.fault(|path| Fault::Unsupported { path, what });
            None
        }
        None => {
            element.note(UNNAMED);
            None
        }
    };
    if matched.is_some_and(|matched| matched != "exact") {
        element.note_attribute("match", "the guest sees exactly the model that is named");
    }
    if mode == Some("custom") && model.is_some_and(|m| m.attribute("fallback") == Some("allow")) {
        element.note("a host that lacks the model is an error; nothing falls back to a similar one");
    } else {
        model.inspect(|model| {
            model.attribute("fallback");
        });
    }
}

fn feature(element: Part<'_>) -> Option<CpuFeature> {
    let Some(name) = element.attribute("name").filter(|name| !name.is_empty()) else {
        element.fault(|path| Fault::Missing { path, what: "name" });
        return None;
    };
    Some(CpuFeature { name: name.to_owned(), policy: element.attribute("policy").map(str::to_owned) })
}
