//! A guest whose launcher asks from a pod: everything that is looked at before the desk has its turn, and its plan.
//!
//! [`look`] runs on a thread of its own: the kubelet and the machine take their time. The rest is the desk's.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use pinion_api::{Document, Place, VirtualMachineInstance, parse_at};
use pinion_discovery::discover;
use pinion_endpoint::{Peer, Refusal, chain};
use pinion_machine::{Bdf, Machine, obstacles};
use pinion_planner::{Holding, HoldingState, Occupancy, Placement, Request, Within, plan};
use pinion_resources::{MAX_BYTES, Resources};
use serde_json::Value;

use super::desk::{Answer, Desk, refused, value};
use super::protocol::{Launched, NoticeText};
use crate::ledger::{Holder, Reservation, ReserveError};
use crate::pod::{
    Given, PodName, PodPlace, PodSources, give_device_nodes, identify, look as look_at_pod, raise_limits,
};
use crate::settings::HostWishes;

/// A guest that may be planned.
#[derive(Debug)]
pub(super) struct Candidate {
    holder: Holder,
    instance: VirtualMachineInstance,
    machine: Machine,
    /// Whether a device of it is to be bound to `vfio-pci` first.
    binds: bool,
    request: Request,
    given: Given,
}

/// What is written into the ledger for it.
type Planned = (Holding, Option<PodPlace>, Placement);

/// Looks at who asks, from which pod, for what, and what that pod was given.
///
/// 1. Who asks is in the pod that it says it is in: nobody else reaches the kubelet through this.
/// 2. The instance is one by the rules, and of the pod's namespace.
/// 3. Only then are the kubelet and the machine asked.
pub(super) fn look(
    sources: &PodSources,
    peer: Peer,
    instance: &Value,
    pod: &PodName,
) -> Result<Candidate, Refusal> {
    let unknown = |e| Refusal::new("ProcessUnknown", format!("process {} cannot be told: {e}", peer.pid));
    let holder = Holder::of(peer.pid).map_err(unknown)?;
    let place = identify(sources, peer.pid, pod).map_err(|e| Refusal::new(e.reason(), e.to_string()))?;
    let instance = read(instance)?;
    if instance.namespace() != place.namespace {
        let message = format!("{} is not of the pod's namespace {:?}", instance.full_name(), place.namespace);
        return Err(Refusal::new("AnotherNamespace", message));
    }
    let given = look_at_pod(sources, place).map_err(|e| Refusal::new(e.reason(), chain(&e)))?;
    if instance.spec.dedicated_cpus() && given.own.is_empty() {
        let message = format!(
            "{} wants CPUs of its own, and its container has none: its pod needs the QoS class Guaranteed and whole CPUs, \
             and the kubelet cpuManagerPolicy: static",
            instance.full_name()
        );
        return Err(Refusal::new("NoDedicatedCpus", message));
    }
    let machine = discover(&sources.machine).map_err(|e| Refusal::new("MachineUnreadable", chain(&e)))?;
    let binds = binds(&sources.resources, &instance)?;
    let request = request(&machine, &instance, &given)?;
    Ok(Candidate { holder, instance, machine, binds, request, given })
}

/// One instance, by the rules of admission.
fn read(instance: &Value) -> Result<VirtualMachineInstance, Refusal> {
    let invalid = |why: String| Refusal::new("InvalidInstance", why);
    let documents =
        parse_at(Place::Cluster, instance.to_string()).map_err(|problems| invalid(problems.to_string()))?;
    let mut instances = documents.into_iter().map(Document::into_instance);
    match (instances.next(), instances.next()) {
        (Some(instance), None) => Ok(instance),
        _ => Err(invalid("this is not one VirtualMachineInstance".to_owned())),
    }
}

/// What it needs, within what the pod was given. Each device is one that the kubelet gave for the resource that the spec
/// names.
fn request(machine: &Machine, instance: &VirtualMachineInstance, given: &Given) -> Result<Request, Refusal> {
    for device in instance.spec.passed_through() {
        let Some(name) = device.device_name else { continue };
        let functions = given.functions(name);
        if functions.is_empty() {
            let why = format!("{}: the container was given no device of the resource {name:?}", device.field);
            return Err(Refusal::new("DeviceNotGiven", why));
        }
        let blocked = |f: &Bdf| obstacles(machine, *f).into_iter().next().map(|o| (*f, o));
        if let Some((address, obstacle)) = functions.iter().find_map(blocked) {
            let why = format!("{}: {address}: {obstacle} ({})", device.field, obstacle.remedy());
            return Err(Refusal::new("DeviceBlocked", why));
        }
    }
    let named = |name: &str| Some(given.functions(name));
    let mut request =
        Request::from_instance(instance, &named).map_err(|e| Refusal::new("InvalidInstance", chain(&e)))?;
    let cpus = if instance.spec.dedicated_cpus() { given.own.clone() } else { given.allowed.clone() };
    request.within = Some(Within { cpus, memory: given.memory.clone() });
    Ok(request)
}

/// Whether a device of the guest goes by a name whose devices are bound when a guest asks for them.
fn binds(file: &Path, instance: &VirtualMachineInstance) -> Result<bool, Refusal> {
    let Ok(opened) = File::open(file) else { return Ok(false) };
    let wrong = |why: String| Refusal::new("ResourcesUnreadable", format!("{}: {why}", file.display()));
    let mut text = String::new();
    opened.take(MAX_BYTES).read_to_string(&mut text).map_err(|e| wrong(e.to_string()))?;
    let resources = Resources::parse(&text)
        .map_err(|problems| wrong(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    let devices = instance.spec.passed_through();
    Ok(devices.iter().filter_map(|d| d.device_name).any(|name| resources.binds(name)))
}

impl Candidate {
    /// Plans it beside what is held.
    ///
    /// A guest with CPUs of its own has its other threads on the node's housekeeping CPUs. One that shares all of its CPUs
    /// with others stays on those of its container: nothing of the kubelet's is changed for it.
    fn plan(&self, occupancy: &Occupancy) -> Result<Planned, Refusal> {
        let given = &self.given;
        let housekeeping = if self.instance.spec.dedicated_cpus() {
            given.housekeeping(&self.machine, &occupancy.housekeeping, &occupancy.dedicated())
        } else {
            given.allowed.clone()
        };
        if housekeeping.is_empty() {
            let why = "no CPU of this node is left for the host and the guest's other threads: containers have all of them \
                for themselves; have the kubelet reserve some (reservedSystemCPUs)";
            return Err(Refusal::new("NoHousekeeping", why));
        }
        let occupancy = Occupancy { housekeeping: housekeeping.clone(), ..occupancy.clone() };
        let placement = plan(&self.machine, &occupancy, &self.request)
            .map_err(|refusal| Refusal::new(&format!("{:?}", refusal.reason), refusal.message))?;
        let place = PodPlace { housekeeping, ..given.place.clone() };
        Ok((placement.holding(HoldingState::Reserved), Some(place), placement))
    }
}

impl Desk {
    /// 1. It is planned and reserved: from here on it is kept for as long as its process lives. Asked again after its answer
    ///    was lost, it is planned anew.
    /// 2. The host is made ready for it. Where that fails, nothing stays reserved.
    pub(super) fn launch(&mut self, candidate: &Candidate) -> Answer {
        let document = self.ledger.read().map_err(|e| refused(&e))?;
        let (owner, holder) = (candidate.instance.full_name(), &candidate.holder);
        for entry in document.holdings.iter().filter(|e| e.process == *holder) {
            if entry.holding.owner != owner || entry.holding.state == HoldingState::Committed {
                let message = format!("process {} is {} already", holder.pid, entry.holding.owner);
                return Err(Refusal::new("AlreadyRuns", message));
            }
            self.ledger.adopt(&owner).and_then(Reservation::release).map_err(|e| refused(&e))?;
        }
        let planned = self.ledger.enter(holder.clone(), |occupancy| candidate.plan(occupancy));
        let (reservation, placement) = planned.map_err(|e| match e {
            ReserveError::Ledger(e) => refused(&e),
            ReserveError::Plan(refusal) => refusal,
        })?;
        reservation.keep();
        match self.make_ready(candidate, &placement) {
            Ok(notices) => value(&Launched { placement, pid: holder.pid, notices }),
            Err(refusal) => {
                // Its process would hold it in vain.
                let _ = self.ledger.adopt(&owner).and_then(Reservation::release);
                self.settle();
                Err(refusal)
            }
        }
    }

    /// What it wishes is written first; its container, its limits and its devices come before the host's settings.
    fn make_ready(
        &mut self,
        candidate: &Candidate,
        placement: &Placement,
    ) -> Result<Vec<NoticeText>, Refusal> {
        let mut reservation = self.ledger.adopt(&placement.name).map_err(|e| refused(&e))?;
        let wishes = HostWishes::of(placement);
        let realtime = placement.vcpus.iter().any(|v| v.realtime);
        reservation.wish(wishes).map_err(|e| refused(&e))?;
        let document = self.ledger.read().map_err(|e| refused(&e))?;
        if let Some(entry) = document.holdings.iter().find(|e| e.holding.owner == placement.name) {
            self.keeper.widen(entry).map_err(|e| Refusal::new("ContainerUnchangeable", chain(&e)))?;
        }
        let mut texts = Vec::new();
        let devices: Vec<Bdf> = placement.devices.iter().map(|d| d.address).collect();
        if let Err(e) = raise_limits(candidate.holder.pid, !devices.is_empty(), realtime) {
            let text = format!("limits of process {} cannot be raised: {e}", candidate.holder.pid);
            texts.push(NoticeText { reason: "LimitsNotRaised".into(), warning: true, text });
        }
        if let Err(e) = give_device_nodes(candidate.holder.pid) {
            let text =
                format!("device nodes of process {} cannot be given to its user: {e}", candidate.holder.pid);
            texts.push(NoticeText { reason: "NodesNotGiven".into(), warning: true, text });
        }
        if candidate.binds && !devices.is_empty() {
            texts.extend(self.bind(&candidate.machine, &devices)?);
        }
        let notices = self.keeper.settle().map_err(|e| refused(&e))?;
        texts.extend(self.tell(notices));
        Ok(texts)
    }
}

#[cfg(test)]
mod tests;
