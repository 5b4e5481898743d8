//! Rules on vCPUs, dedicated CPUs, NUMA and real time.

use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::quantity::Quantity;
use crate::{Cpu, InstanceSpec, VcpuMask};

/// Most vCPUs of a guest; where KubeVirt stops too.
const MOST_VCPUS: u32 = 512;

pub(super) fn check(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let cpu = spec.domain.cpu.clone().unwrap_or_default();
    let rules = Rules { spec, cpu: &cpu, domain: path.field("domain"), path: path.field("domain.cpu") };
    rules.counts(findings);
    rules.resources(findings);
    if spec.dedicated_cpus() {
        rules.dedicated(findings);
    } else {
        rules.not_dedicated(findings);
    }
    rules.realtime(findings);
}

struct Rules<'a> {
    spec: &'a InstanceSpec,
    cpu: &'a Cpu,
    domain: FieldPath,
    path: FieldPath,
}

impl Rules<'_> {
    fn counts(&self, findings: &mut Findings) {
        let topology = self.spec.topology();
        let vcpus = topology.vcpus();
        if vcpus > MOST_VCPUS {
            let shape = format!(
                "{} sockets × {} cores × {} threads",
                topology.sockets, topology.cores, topology.threads
            );
            let message = format!("{shape} are more than the {MOST_VCPUS} vCPUs a guest can have");
            findings.add(&self.path, ProblemCode::Invalid, message);
        }
        // Rule 15, and stricter: vCPUs are not plugged in later.
        if let Some(most) = self.cpu.max_sockets.filter(|most| *most != 0 && *most != topology.sockets) {
            let path = self.path.field("maxSockets");
            if most < topology.sockets {
                let message = format!("{} sockets are more than this maximum of {most}", topology.sockets);
                findings.add(&path, ProblemCode::Conflict, message);
            } else {
                let message = format!(
                    "not implemented yet: CPUs are not hot-plugged; remove it, or make it {} as sockets",
                    topology.sockets
                );
                findings.add(&path, ProblemCode::Planned, message);
            }
        }
    }

    /// Requests and limits by themselves.
    fn resources(&self, findings: &mut Findings) {
        let resources = self.domain.field("resources");
        let Some(given) = &self.spec.domain.resources else { return };
        for (map, list) in [("requests", &given.requests), ("limits", &given.limits)] {
            for (resource, amount) in list {
                let path = resources.field(map).key(resource);
                if !["cpu", "memory"].contains(&resource.as_str()) {
                    let message =
                        "refused: only cpu and memory are counted; use memory.hugepages for huge pages";
                    findings.add(&path, ProblemCode::Refused, message);
                } else if amount.is_negative() {
                    // Rules 11, 12, 21 and 22.
                    findings.add(&path, ProblemCode::Invalid, format!("{amount} is negative"));
                }
            }
        }
        // Rules 13 and 23.
        for resource in ["cpu", "memory"] {
            if let (Some(request), Some(limit)) = (given.requests.get(resource), given.limits.get(resource))
                && request > limit
            {
                let message = format!("{request} is greater than the limit of {limit}");
                findings.add(&resources.field("requests").key(resource), ProblemCode::Conflict, message);
            }
        }
    }

    fn amounts(&self) -> [(&'static str, Option<&Quantity>); 2] {
        [("requests", self.spec.request("cpu")), ("limits", self.spec.limit("cpu"))]
    }

    fn dedicated(&self, findings: &mut Findings) {
        let placement = self.path.field("dedicatedCpuPlacement");
        let vcpus = u64::from(self.spec.topology().vcpus());
        let shaped = self.cpu.given().iter().any(Option::is_some);
        // Rules 2 and 3: whole CPUs.
        let mut whole = true;
        for (map, amount) in self.amounts() {
            if let Some(amount) = amount.filter(|amount| amount.whole().is_none() && !amount.is_negative()) {
                whole = false;
                let message = format!("{amount} is not a whole number, and dedicated CPUs are whole");
                let path = self.domain.field("resources").field(map).key("cpu");
                findings.add(&path, ProblemCode::Invalid, message);
            }
        }
        match self.amounts() {
            // Rule 5: something must say how many.
            [(_, None), (_, None)] if !shaped => {
                let message = "how many CPUs? give cpu.cores (sockets, threads), or a CPU request or limit";
                findings.add(&placement, ProblemCode::Required, message);
            }
            // Rule 6: request and limit agree.
            [(_, Some(request)), (_, Some(limit))] if request != limit => {
                let message = format!("the CPU request of {request} and limit of {limit} must be equal");
                findings.add(&placement, ProblemCode::Conflict, message);
            }
            // Rule 7, and stricter: each that is given must agree with the shape.
            amounts if shaped && whole => {
                for (map, amount) in amounts {
                    if let Some(amount) = amount.filter(|amount| amount.whole() != Some(vcpus)) {
                        let message = format!(
                            "{amount} does not agree with the {vcpus} vCPUs of domain.cpu: remove it"
                        );
                        let path = self.domain.field("resources").field(map).key("cpu");
                        findings.add(&path, ProblemCode::Conflict, message);
                    }
                }
            }
            _ => {}
        }
    }

    fn not_dedicated(&self, findings: &mut Findings) {
        let needs = "needs cpu.dedicatedCpuPlacement: true";
        // Rule 10.
        if self.cpu.isolate_emulator_thread == Some(true) {
            findings.add(&self.path.field("isolateEmulatorThread"), ProblemCode::Conflict, needs);
        }
        // Rule 17.
        if self.spec.numa_passthrough() {
            findings.add(&self.path.field("numa.guestMappingPassthrough"), ProblemCode::Conflict, needs);
        }
        let vcpus = u64::from(self.spec.topology().vcpus());
        for (map, amount) in self.amounts() {
            let Some(amount) = amount else { continue };
            let path = self.domain.field("resources").field(map).key("cpu");
            if map == "requests" && amount.rounded_up() > vcpus {
                let message =
                    format!("{amount} is more than the {vcpus} vCPUs can use: lower it, or remove it");
                findings.add(&path, ProblemCode::Conflict, message);
            }
            if map == "limits" && amount.rounded_up() < vcpus {
                let message = format!(
                    "not implemented yet: {amount} would throttle {vcpus} vCPUs, and guests are not throttled; remove it"
                );
                findings.add(&path, ProblemCode::Planned, message);
            }
        }
    }

    fn realtime(&self, findings: &mut Findings) {
        let Some(realtime) = &self.cpu.realtime else { return };
        // Rules 19 and 20.
        if !self.spec.dedicated_cpus() {
            let message = "required by cpu.realtime: set it to true";
            findings.add(&self.path.field("dedicatedCpuPlacement"), ProblemCode::Required, message);
        }
        if !self.spec.numa_passthrough() {
            let message = "required by cpu.realtime: set it to {}";
            findings.add(&self.path.field("numa.guestMappingPassthrough"), ProblemCode::Required, message);
        }
        // KubeVirt finds a bad mask when the guest starts.
        if let Some(mask) = realtime.mask.as_deref().filter(|mask| !mask.is_empty())
            && let Err(error) = VcpuMask::parse(mask, self.spec.topology().vcpus())
        {
            findings.add(&self.path.field("realtime.mask"), ProblemCode::Invalid, super::lower_first(&error));
        }
    }
}
