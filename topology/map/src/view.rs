//! Who holds what: the part of the picture that changes.

use std::collections::BTreeMap;

use pinion_machine::{Bdf, CpuId, CpuSet, Machine, NodeId, PageSize};
use pinion_planner::{Holding, HoldingState, Occupancy, Placement};

use crate::words;

/// Who holds what on a machine, and optionally where planned guests would go.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(crate) guests: Vec<Guest>,
    housekeeping: CpuSet,
    isolated: CpuSet,
    marks: BTreeMap<CpuId, Mark>,
    siblings: BTreeMap<CpuId, CpuSet>,
    memory: Vec<Held>,
    devices: BTreeMap<Bdf, usize>,
}

/// A guest in the picture.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) name: String,
    /// One line per cell and so on, for a planned guest.
    pub(crate) notes: Vec<String>,
    pub(crate) placed: bool,
}

/// What runs on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Held(usize),
    Vcpu(usize, u32),
    Io(usize, u32),
    Idle(usize),
    Floating(usize),
    Crowd,
}

/// Memory that a guest holds on a node.
#[derive(Clone, Copy, Debug)]
struct Held {
    guest: usize,
    node: NodeId,
    page_size: PageSize,
    bytes: u64,
    state: HoldingState,
}

/// The role of a CPU, as it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Housekeeping,
    /// Dedicated to a vCPU of the guest.
    Dedicated(usize),
    /// Dedicated to an I/O thread of the guest.
    Io(usize),
    /// Kept empty: its core is the guest's.
    Idle(usize),
    /// Shared vCPUs float over it; whose, where of one guest only.
    Shared(Option<usize>),
    Isolated,
    Free,
}

impl View {
    /// The view of what is taken.
    #[must_use]
    pub fn of(machine: &Machine, occupancy: &Occupancy) -> Self {
        let siblings = machine.cores.iter().filter(|core| core.cpus.len() > 1);
        let siblings = siblings.flat_map(|core| core.cpus.iter().map(|cpu| (cpu, core.cpus.clone())));
        let mut view = Self {
            housekeeping: occupancy.housekeeping.clone(),
            isolated: machine.kernel.isolated.clone(),
            siblings: siblings.collect(),
            ..Self::default()
        };
        for holding in &occupancy.holdings {
            let guest = view.guest(&holding.owner);
            view.hold(guest, holding);
        }
        view
    }

    /// With a planned guest in it, its vCPUs, I/O threads and cells by number. A guest of
    /// that name that already holds something is the same guest.
    #[must_use]
    pub fn with_placement(mut self, placement: &Placement) -> Self {
        let known = self.guests.iter().any(|g| g.name == placement.name);
        let guest = self.guest(&placement.name);
        if !known {
            self.hold(guest, &placement.holding(HoldingState::Reserved));
        }
        let threads = placement.io_threads.iter();
        for thread in threads.filter(|t| t.cpus.is_disjoint(&placement.emulator.cpus)) {
            self.marks.extend(thread.cpus.iter().map(|cpu| (cpu, Mark::Io(guest, thread.id))));
        }
        let own = placement.vcpus.iter().filter_map(|v| Some((v.cpu?, Mark::Vcpu(guest, v.id))));
        self.marks.extend(own);
        let notes = words::notes(placement);
        if let Some(entry) = self.guests.get_mut(guest) {
            entry.placed = true;
            entry.notes = notes;
        }
        self
    }

    fn guest(&mut self, name: &str) -> usize {
        self.guests.iter().position(|g| g.name == name).unwrap_or_else(|| {
            self.guests.push(Guest { name: name.to_owned(), notes: Vec::new(), placed: false });
            self.guests.len() - 1
        })
    }

    fn hold(&mut self, guest: usize, holding: &Holding) {
        for cpu in holding.cpus.iter() {
            self.marks.insert(cpu, Mark::Held(guest));
            let siblings = self.siblings.get(&cpu).into_iter().flat_map(CpuSet::iter);
            for sibling in siblings.filter(|s| !holding.cpus.contains(*s)) {
                self.marks.entry(sibling).or_insert(Mark::Idle(guest));
            }
        }
        for cpu in holding.floating.iter().flat_map(|f| f.cpus.iter()) {
            let mark = self.marks.entry(cpu).or_insert(Mark::Floating(guest));
            if matches!(mark, Mark::Floating(other) if *other != guest) {
                *mark = Mark::Crowd;
            }
        }
        self.memory.extend(holding.memory.iter().map(|m| Held {
            guest,
            node: m.node,
            page_size: m.page_size,
            bytes: m.bytes,
            state: holding.state,
        }));
        self.devices.extend(holding.devices.iter().map(|address| (*address, guest)));
    }

    /// The role of an online CPU.
    pub(crate) fn role(&self, cpu: CpuId) -> Role {
        match self.marks.get(&cpu) {
            _ if self.housekeeping.contains(cpu) => Role::Housekeeping,
            Some(Mark::Held(guest) | Mark::Vcpu(guest, _)) => Role::Dedicated(*guest),
            Some(Mark::Io(guest, _)) => Role::Io(*guest),
            Some(Mark::Idle(guest)) => Role::Idle(*guest),
            Some(Mark::Floating(guest)) => Role::Shared(Some(*guest)),
            Some(Mark::Crowd) => Role::Shared(None),
            None if self.isolated.contains(cpu) => Role::Isolated,
            None => Role::Free,
        }
    }

    /// What is written on a CPU: `v0` and `io1` of the one planned guest, `Av0` where there
    /// are several, the letter of any other guest.
    pub(crate) fn label(&self, cpu: CpuId) -> String {
        let several = self.guests.iter().filter(|g| g.placed).count() > 1;
        let prefix = |guest: &usize| if several { words::letters(*guest) } else { String::new() };
        match (self.role(cpu), self.marks.get(&cpu)) {
            (Role::Housekeeping, _) => "hk".to_owned(),
            (_, Some(Mark::Vcpu(guest, id))) => format!("{}v{id}", prefix(guest)),
            (_, Some(Mark::Io(guest, id))) => format!("{}io{id}", prefix(guest)),
            (Role::Dedicated(guest) | Role::Io(guest), _) => words::letters(guest),
            (Role::Idle(_), _) => "-".to_owned(),
            (Role::Shared(guest), _) => format!("~{}", guest.map(words::letters).unwrap_or_default()),
            (Role::Isolated, _) => "○".to_owned(),
            (Role::Free, _) => "·".to_owned(),
        }
    }

    /// What guests hold on a node, by guest; ordinary memory where `pool` is `None`.
    pub(crate) fn held_on(&self, node: NodeId, pool: Option<PageSize>) -> BTreeMap<usize, u64> {
        let mut held = BTreeMap::new();
        for m in self.on(node, pool) {
            let sum = held.entry(m.guest).or_insert(0u64);
            *sum = sum.saturating_add(m.bytes);
        }
        held
    }

    /// Bytes that are promised on a node and that the kernel still counts as free.
    pub(crate) fn promised_on(&self, node: NodeId, pool: Option<PageSize>) -> u64 {
        let reserved = self.on(node, pool).filter(|m| m.state == HoldingState::Reserved);
        reserved.map(|m| m.bytes).fold(0, u64::saturating_add)
    }

    fn on(&self, node: NodeId, pool: Option<PageSize>) -> impl Iterator<Item = &Held> {
        let of = move |size: PageSize| pool.map_or(!size.is_huge(), |pool| pool == size);
        self.memory.iter().filter(move |m| m.node == node && of(m.page_size))
    }

    /// Who holds a device.
    pub(crate) fn device(&self, address: Bdf) -> Option<usize> {
        self.devices.get(&address).copied()
    }

    /// Whether nothing on the node, of these CPUs and devices, is taken; isolated CPUs are free.
    pub(crate) fn is_untouched(&self, node: NodeId, cpus: &CpuSet, devices: &[Bdf]) -> bool {
        cpus.iter().all(|cpu| matches!(self.role(cpu), Role::Free | Role::Isolated))
            && !self.memory.iter().any(|m| m.node == node)
            && !devices.iter().any(|address| self.devices.contains_key(address))
    }
}
