//! The plan itself: from the chosen nodes to every vCPU, page, thread and device.

use pinion_machine::{CoreId, CpuId, CpuSet, Machine};

use crate::demand::Demand;
use crate::devices::{Assignment, DevicePool};
use crate::io_threads::{self, Used};
use crate::memory::{self, Sharer};
use crate::search::{Choice, Search, device_distance};
use crate::stock::Stock;
use crate::{Cell, Device, Emulator, IoThread, IoThreadPlace, Occupancy, Placement, Refusal, Request, Vcpu};
use crate::{explain, stock, within};

/// The most vCPUs of a guest: as many as a CPU set can name. Shared vCPUs could otherwise
/// be without bound.
const MOST_VCPUS: u64 = 65_536;

/// Places a VM on a machine, or says why it cannot be placed.
///
/// # Errors
/// A [`Refusal`] where no placement exists: what is short, who holds it, and the nearest
/// request that fits.
pub fn plan(machine: &Machine, occupancy: &Occupancy, request: &Request) -> Result<Placement, Refusal> {
    let demand = Demand::of(request);
    if u64::from(demand.cores) * u64::from(demand.threads) > MOST_VCPUS {
        return Err(explain::too_many(request, &demand, MOST_VCPUS));
    }
    match &request.within {
        None => plan_on(machine, occupancy, request, &demand),
        Some(given) => {
            let (machine, occupancy) = within::narrow(machine, occupancy, given);
            plan_on(&machine, &occupancy, request, &demand)
        }
    }
}

fn plan_on(
    machine: &Machine,
    occupancy: &Occupancy,
    request: &Request,
    demand: &Demand,
) -> Result<Placement, Refusal> {
    let stock = Stock::new(machine, occupancy, demand);
    let devices = DevicePool::new(machine, occupancy, request);
    let search = Search::new(&stock, &stock.room, demand, &devices);
    let placed = match devices.suffice() {
        true => {
            search.best().and_then(|choice| Layout { search: &search, choice: &choice, request }.lay_out())
        }
        false => None,
    };
    match placed {
        Some(placement) => Ok(Placement { generation: occupancy.generation, ..placement }),
        None => Err(explain::refusal(&stock, occupancy, request, demand, &devices)),
    }
}

/// A choice of nodes on the way to a placement.
struct Layout<'a> {
    search: &'a Search<'a>,
    choice: &'a Choice,
    request: &'a Request,
}

impl Layout<'_> {
    fn lay_out(&self) -> Option<Placement> {
        let (stock, demand) = (self.search.stock, self.search.demand);
        let used = self.used();
        let hosts = self.host_cores(&used)?;
        let own: CpuSet = if demand.dedicated() {
            hosts.iter().flatten().flatten().copied().collect()
        } else {
            CpuSet::new()
        };
        let io = io_threads::place(stock, demand, self.choice.level, &used, &own);
        if io.len() < demand.io as usize {
            return None;
        }
        let floating: Vec<CpuSet> = match demand.dedicated() {
            true => vec![CpuSet::new(); used.len()],
            false => used.iter().zip(&hosts).map(|(u, cores)| self.floats(u.0, cores, &io)).collect(),
        };
        let cells = self.cells(&used)?;
        Some(Placement {
            name: self.request.name.clone(),
            generation: 0,
            vcpus: self.vcpus(&hosts, &floating),
            emulator: Emulator { cpus: stock.housekeeping.clone() },
            io_threads: self.io_threads(&io),
            cells,
            devices: self.devices(&io)?,
        })
    }

    fn used(&self) -> Vec<Used> {
        let cells = self.choice.nodes.iter().zip(&self.choice.split.cores);
        cells.map(|(node, n)| (*node, *n, self.search.host_cores(*node, *n))).collect()
    }

    /// Per cell, per guest core, its CPUs: `threads` siblings of one host core. With shared
    /// CPUs, per cell, per host core, all its CPUs.
    fn host_cores(&self, used: &[Used]) -> Option<Vec<Vec<Vec<CpuId>>>> {
        let (stock, demand) = (self.search.stock, self.search.demand);
        let threads = demand.width();
        let mut wanted = vec![0; stock.domains.len()];
        for (node, _, host) in used {
            let take = self.search.take(*node, *host)?;
            for (domain, n) in stock.nodes.get(*node)?.domains.iter().zip(take.cores) {
                wanted.iter_mut().skip(*domain).take(1).for_each(|w| *w = n);
            }
        }
        let mut in_domain: Vec<Vec<stock::FreeCore>> = vec![Vec::new(); stock.domains.len()];
        for core in stock.free_cores(|d| wanted.get(d).is_some_and(|w| *w > 0)) {
            let most = wanted.get(core.domain).copied().unwrap_or(0) as usize;
            let taken = in_domain.get_mut(core.domain)?;
            if core.width >= threads && taken.len() < most {
                taken.push(core);
            }
        }
        let mut cells = Vec::with_capacity(used.len());
        for (node, cores, _) in used {
            let domains = &stock.nodes.get(*node)?.domains;
            let hosts = domains.iter().filter_map(|d| in_domain.get(*d)).flatten();
            let cpus = stock.cpus_of(&hosts.map(|core| core.index).collect::<Vec<_>>());
            cells.push(if demand.dedicated() { self.guest_cores(&cpus, *cores) } else { cpus });
        }
        Some(cells)
    }

    /// One guest core per host core; where there are more, the lowest host cores take
    /// several, each on CPUs of its own.
    fn guest_cores(&self, hosts: &[Vec<CpuId>], cores: u32) -> Vec<Vec<CpuId>> {
        let threads = self.search.demand.threads as usize;
        let mut extra = (cores as usize).saturating_sub(hosts.len());
        let mut guest = Vec::with_capacity(cores as usize);
        for cpus in hosts {
            let more = extra.min((cpus.len() / threads).saturating_sub(1));
            extra -= more;
            guest.extend(cpus.chunks_exact(threads).take(more + 1).map(<[CpuId]>::to_vec));
        }
        guest
    }

    /// What the shared vCPUs of a node float over: the pool of the node and what is added to
    /// it; with neither, its housekeeping CPUs; with none of those, all housekeeping CPUs.
    fn floats(&self, node: usize, added: &[Vec<CpuId>], io: &[CpuId]) -> CpuSet {
        let stock = self.search.stock;
        let cores_of_io: Vec<CoreId> =
            io.iter().filter_map(|c| stock.machine.cpu(*c)).map(|c| c.core).collect();
        let for_io = |cpu: &CpuId| stock.machine.cpu(*cpu).is_some_and(|c| cores_of_io.contains(&c.core));
        let mut cpus = stock.nodes.get(node).map(|n| n.pool.clone()).unwrap_or_default();
        cpus.extend(added.iter().flatten().copied().filter(|cpu| !for_io(cpu)));
        if cpus.is_empty() { self.housekeeping_on(&[node]) } else { cpus }
    }

    /// Housekeeping CPUs of these nodes, or all where they have none.
    fn housekeeping_on(&self, nodes: &[usize]) -> CpuSet {
        let stock = self.search.stock;
        let of = |n: &usize| stock.machine.nodes.get(*n).map(|n| n.cpus.intersection(&stock.housekeeping));
        let near = nodes.iter().filter_map(of).fold(CpuSet::new(), |all, some| all.union(&some));
        if near.is_empty() { stock.housekeeping.clone() } else { near }
    }

    fn vcpus(&self, hosts: &[Vec<Vec<CpuId>>], floating: &[CpuSet]) -> Vec<Vcpu> {
        let demand = self.search.demand;
        let mut realtime = self.request.cpu.realtime.clone();
        realtime.sort_unstable();
        let mut vcpus = Vec::new();
        let (mut guest_core, mut id) = (0, 0);
        let cells = self.choice.split.cores.iter().zip(hosts).zip(floating).zip(0..);
        for (((cores, hosts), floating), cell) in cells {
            for index in 0..*cores {
                for thread in 0..demand.threads {
                    let own = hosts.get(index as usize).and_then(|core| core.get(thread as usize)).copied();
                    vcpus.push(Vcpu {
                        id,
                        socket: guest_core / demand.per_socket,
                        core: guest_core % demand.per_socket,
                        thread,
                        cell,
                        cpu: own.filter(|_| demand.dedicated()),
                        cpus: floating.clone(),
                        realtime: realtime.binary_search(&id).is_ok(),
                    });
                    id += 1;
                }
                guest_core += 1;
            }
        }
        vcpus
    }

    fn cells(&self, used: &[Used]) -> Option<Vec<Cell>> {
        let (stock, demand) = (self.search.stock, self.search.demand);
        let sharers: Vec<Sharer> =
            used.iter().map(|u| Sharer { cores: u.1, home: stock.home(u.0) }).collect();
        let pages = memory::split(demand, &stock.room.pages, &sharers)?;
        let mut first = 0;
        let mut cells = Vec::with_capacity(used.len());
        for (((node, cores, _), pages), id) in used.iter().zip(pages).zip(0..) {
            let last = first + cores * demand.threads;
            cells.push(Cell {
                id,
                host_node: stock.nodes.get(stock.home(*node))?.id,
                memory_bytes: pages.checked_mul(demand.page.bytes())?,
                page_size_bytes: demand.page,
                vcpus: (first..last).collect(),
                distances: used.iter().map(|to| self.guest_distance(*node, to.0)).collect(),
            });
            first = last;
        }
        Some(cells)
    }

    /// As the guest's SLIT may say it: 10 to itself, 11 to 254 to others.
    fn guest_distance(&self, from: usize, to: usize) -> u32 {
        if from == to { 10 } else { self.search.stock.distance(from, to).clamp(11, 254) }
    }

    fn io_threads(&self, own: &[CpuId]) -> Vec<IoThread> {
        let shared = self.housekeeping_on(&self.choice.nodes);
        let mut own = own.iter();
        let place = |thread: &crate::IoThreadRequest| IoThread {
            id: thread.id,
            cpus: match thread.place {
                IoThreadPlace::SharedIo => shared.clone(),
                IoThreadPlace::Dedicated => own.next().copied().into_iter().collect(),
            },
            disks: thread.disks.clone(),
        };
        self.request.io_threads.iter().map(place).collect()
    }

    /// Where a device's interrupts come: housekeeping CPUs of its node, else the guest's own I/O CPUs there, else
    /// the nearest housekeeping CPUs. Never a vCPU's: what handles an interrupt there would stop the guest.
    fn interrupt_cpus(&self, node: Option<usize>, io: &[CpuId]) -> CpuSet {
        let stock = self.search.stock;
        let Some(near) = node.or_else(|| self.choice.nodes.first().copied()) else {
            return stock.housekeeping.clone();
        };
        let on = |n: usize| stock.machine.nodes.get(n).map(|n| n.cpus.clone()).unwrap_or_default();
        let local = on(near).intersection(&stock.housekeeping);
        if !local.is_empty() {
            return local;
        }
        let own: CpuSet = io.iter().copied().filter(|cpu| on(near).contains(*cpu)).collect();
        if !own.is_empty() {
            return own;
        }
        let mut others: Vec<usize> = (0..stock.nodes.len()).collect();
        others.sort_by_key(|n| (stock.distance(near, *n), *n));
        let keeps = others.into_iter().map(|n| on(n).intersection(&stock.housekeeping));
        keeps.into_iter().find(|cpus| !cpus.is_empty()).unwrap_or_else(|| stock.housekeeping.clone())
    }

    fn devices(&self, io: &[CpuId]) -> Option<Vec<Device>> {
        let stock = self.search.stock;
        let nodes = &self.choice.nodes;
        let Assignment { functions, .. } =
            self.search.devices.assign(|node| device_distance(stock, node, nodes));
        let place = |(request, function): (&crate::DeviceRequest, Option<crate::devices::Function>)| {
            let function = function?;
            let far = |cell: usize| device_distance(stock, function.node, &[cell]);
            let cell = nodes.iter().zip(0..).min_by_key(|(n, id)| (far(**n), *id)).map_or(0, |(_, id)| id);
            Some(Device {
                name: request.name.clone(),
                address: function.address,
                iommu_group: function.group,
                host_node: function.node.and_then(|n| stock.nodes.get(n)).map(|n| n.id),
                cell,
                interrupt_cpus: self.interrupt_cpus(function.node, io),
            })
        };
        self.request.devices.iter().zip(functions).map(place).collect()
    }
}
