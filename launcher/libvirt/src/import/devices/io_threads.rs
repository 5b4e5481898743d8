//! Threads of QEMU that serve disks.

use std::collections::BTreeMap;

use pinion_api::{Disk, DiskBus, InstanceSpec, IoThreadsPolicy};

use super::super::source::Part;

/// Finds the policy that gives disks the threads they had.
pub(super) fn io_threads(domain: Part<'_>, of_disks: &[Option<u32>], spec: &mut InstanceSpec) {
    let Some(count) = domain.child("iothreads") else { return };
    count.gives("spec.domain.ioThreadsPolicy");
    domain.skip("iothreadids");
    let disks = &mut spec.domain.devices.disks;
    let is_virtio =
        |disk: &Disk| disk.disk.as_ref().is_some_and(|target| target.bus == Some(DiskBus::Virtio));
    let mut threads: BTreeMap<u32, Vec<&mut Disk>> = BTreeMap::new();
    let mut unserved = false;
    for (disk, thread) in disks.iter_mut().zip(of_disks).filter(|(disk, _)| is_virtio(disk)) {
        match thread {
            Some(thread) => threads.entry(*thread).or_default().push(disk),
            None => unserved = true,
        }
    }
    let (mut alone, together): (Vec<_>, Vec<_>) = threads.into_values().partition(|disks| disks.len() == 1);
    let policy = match (alone.len(), together.len()) {
        (0, 0) => {
            count.note("no virtio disk that is carried over was served by an I/O thread");
            None
        }
        (1, 0) if !unserved => Some(IoThreadsPolicy::Shared),
        (_, several) if several > 1 => {
            count.note(
                "several threads served several disks each: each disk has its own now, up to twice the vCPUs",
            );
            Some(IoThreadsPolicy::Auto)
        }
        (_, common) => {
            alone.iter_mut().flatten().for_each(|disk| disk.dedicated_io_thread = Some(true));
            (common > 0).then_some(IoThreadsPolicy::Shared)
        }
    };
    if policy.is_some() && unserved {
        count.note("disks that had no I/O thread are served by one, too");
    }
    spec.domain.io_threads_policy = policy;
}
