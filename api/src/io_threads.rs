//! Which I/O threads a spec asks for and which disks each serves.
//!
//! Read by the planner's caller; where the threads run is the planner's to say.

use crate::{InstanceSpec, IoThreadsPolicy};

/// An I/O thread that a spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoThread {
    /// Its number, from 1.
    pub id: u32,
    /// What CPU it wants.
    pub cpu: IoThreadCpu,
    /// The disks it serves, by name, in the order of the spec.
    pub disks: Vec<String>,
}

/// What CPU an I/O thread wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoThreadCpu {
    /// It shares the host's I/O CPUs.
    Shared,
    /// One to itself.
    Own,
}

impl InstanceSpec {
    /// The I/O threads: first those of the policy, disks dealt out in turn, then one for each
    /// disk with `dedicatedIOThread`. Disks of no thread are served by the emulator thread.
    #[must_use]
    pub fn io_threads(&self) -> Vec<IoThread> {
        let (own, common): (Vec<_>, Vec<_>) =
            self.domain.devices.disks.iter().partition(|disk| disk.has_own_thread());
        let (count, cpu) = self.common_threads(common.len());
        let mut threads: Vec<IoThread> =
            (0..count).map(|_| IoThread { id: 0, cpu, disks: Vec::new() }).collect();
        for (number, disk) in common.iter().enumerate() {
            if let Some(thread) = number.checked_rem(count).and_then(|turn| threads.get_mut(turn)) {
                thread.disks.push(disk.name.clone());
            }
        }
        threads.extend(own.iter().map(|disk| IoThread {
            id: 0,
            cpu: IoThreadCpu::Shared,
            disks: vec![disk.name.clone()],
        }));
        for (id, thread) in (1..).zip(&mut threads) {
            thread.id = id;
        }
        threads
    }

    /// How many threads the policy makes for that many disks, and their CPUs.
    fn common_threads(&self, disks: usize) -> (usize, IoThreadCpu) {
        let wanted = match self.domain.io_threads_policy {
            None => 0,
            Some(IoThreadsPolicy::Shared) => 1,
            Some(IoThreadsPolicy::Auto) => u64::from(self.topology().vcpus()) * 2,
            Some(IoThreadsPolicy::SupplementalPool) => {
                let pool = self
                    .domain
                    .io_threads
                    .as_ref()
                    .and_then(|threads| threads.supplemental_pool_thread_count);
                return (usize::try_from(pool.unwrap_or(0)).unwrap_or(0).min(disks), IoThreadCpu::Own);
            }
        };
        (usize::try_from(wanted).unwrap_or(usize::MAX).min(disks), IoThreadCpu::Shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, Disk, IoThreads};

    fn spec(policy: Option<IoThreadsPolicy>, disks: &[(&str, bool)]) -> InstanceSpec {
        let mut spec = InstanceSpec::default();
        spec.domain.io_threads_policy = policy;
        spec.domain.devices.disks = disks
            .iter()
            .map(|(name, own)| Disk {
                name: (*name).into(),
                dedicated_io_thread: Some(*own),
                ..Disk::default()
            })
            .collect();
        spec
    }

    fn summary(spec: &InstanceSpec) -> Vec<(u32, IoThreadCpu, String)> {
        spec.io_threads().into_iter().map(|thread| (thread.id, thread.cpu, thread.disks.join("+"))).collect()
    }

    #[test]
    fn without_a_policy_only_dedicated_threads_are_made() {
        let spec = spec(None, &[("a", false), ("b", true)]);
        assert_eq!(summary(&spec), [(1, IoThreadCpu::Shared, "b".to_owned())]);
    }

    #[test]
    fn shared_serves_all_disks_without_their_own() {
        let spec = spec(Some(IoThreadsPolicy::Shared), &[("a", false), ("b", true), ("c", false)]);
        let expected = [(1, IoThreadCpu::Shared, "a+c".to_owned()), (2, IoThreadCpu::Shared, "b".to_owned())];
        assert_eq!(summary(&spec), expected);
    }

    #[test]
    fn auto_makes_one_per_disk_up_to_twice_the_vcpus() {
        let spec = spec(Some(IoThreadsPolicy::Auto), &[("a", false), ("b", false), ("c", false)]);
        let expected = [(1, IoThreadCpu::Shared, "a+c".to_owned()), (2, IoThreadCpu::Shared, "b".to_owned())];
        assert_eq!(summary(&spec), expected);
    }

    #[test]
    fn a_pool_has_cpus_of_its_own() {
        let mut spec =
            spec(Some(IoThreadsPolicy::SupplementalPool), &[("a", false), ("b", false), ("c", true)]);
        spec.domain.cpu = Some(Cpu { cores: Some(4), ..Cpu::default() });
        spec.domain.io_threads = Some(IoThreads { supplemental_pool_thread_count: Some(2) });
        let expected = [
            (1, IoThreadCpu::Own, "a".to_owned()),
            (2, IoThreadCpu::Own, "b".to_owned()),
            (3, IoThreadCpu::Shared, "c".to_owned()),
        ];
        assert_eq!(summary(&spec), expected);
    }
}
