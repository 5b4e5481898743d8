//! Requests and occupancies for tests.

use pinion_machine::{Bdf, CpuSet, NodeId, PageSize};
use pinion_planner::{
    CpuPolicy, CpuRequest, DeviceRequest, GuestTopology, HeldMemory, Holding, HoldingState, IoThreadPlace,
    IoThreadRequest, MemoryRequest, NumaPolicy, Occupancy, Request,
};

#[track_caller]
pub(crate) fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn dedicated(sockets: u32, cores: u32, threads: u32, bytes: u64) -> Request {
    Request {
        name: "t/vm".into(),
        cpu: CpuRequest {
            topology: GuestTopology { sockets, cores, threads },
            policy: CpuPolicy::Dedicated,
            realtime: vec![],
        },
        memory: MemoryRequest { bytes, page_size: PageSize::KIB4 },
        numa: NumaPolicy::Auto,
        io_threads: vec![],
        devices: vec![],
        within: None,
    }
}

pub(crate) fn shared(vcpus: u32, bytes: u64) -> Request {
    let mut request = dedicated(1, vcpus, 1, bytes);
    request.cpu.policy = CpuPolicy::Shared;
    request
}

pub(crate) fn free() -> Occupancy {
    Occupancy::default()
}

pub(crate) fn held(list: &str, bytes: u64) -> Occupancy {
    let memory = (bytes > 0).then_some(HeldMemory { node: NodeId(0), page_size: PageSize::KIB4, bytes });
    let holding = Holding {
        owner: "t/other".into(),
        state: HoldingState::Reserved,
        cpus: cpus(list),
        floating: vec![],
        memory: memory.into_iter().collect(),
        devices: vec![],
    };
    Occupancy { holdings: vec![holding], ..Occupancy::default() }
}

pub(crate) fn io_thread(id: u32, place: IoThreadPlace) -> IoThreadRequest {
    IoThreadRequest { id, place, disks: vec![format!("disk{id}")] }
}

pub(crate) fn device(name: &str, candidates: &[Bdf]) -> DeviceRequest {
    DeviceRequest { name: name.into(), candidates: candidates.to_vec() }
}
