//! What the host counts for a CPU besides its trace: firmware's interrupts, throttling, steal.

use std::fs;
use std::io::{Read, Seek, SeekFrom};

/// `MSR_SMI_COUNT` (SDM volume 4): system management interrupts since power-on; Intel only.
const SMI_COUNT: u64 = 0x34;

/// Counts of one CPU at one moment; absent where nobody counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) smi: Option<u64>,
    pub(super) throttled: Option<u64>,
    pub(super) steal_ns: Option<u64>,
}

impl Counters {
    pub(super) fn of(cpu: u32) -> Self {
        Self { smi: smi(cpu), throttled: throttled(cpu), steal_ns: steal_ns(cpu) }
    }

    /// What was counted since.
    pub(super) fn since(self, before: Self) -> Self {
        let since = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Self {
            smi: since(self.smi, before.smi),
            throttled: since(self.throttled, before.throttled),
            steal_ns: since(self.steal_ns, before.steal_ns),
        }
    }
}

fn smi(cpu: u32) -> Option<u64> {
    let vendor = fs::read_to_string("/proc/cpuinfo").ok()?;
    vendor.contains("GenuineIntel").then_some(())?;
    let mut file = fs::File::open(format!("/dev/cpu/{cpu}/msr")).ok()?;
    file.seek(SeekFrom::Start(SMI_COUNT)).ok()?;
    let mut value = [0; 8];
    file.read_exact(&mut value).ok()?;
    Some(u64::from_le_bytes(value))
}

fn throttled(cpu: u32) -> Option<u64> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle/core_throttle_count");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `/proc/stat`, eighth column, in hundredths of a second (proc(5)).
fn steal_ns(cpu: u32) -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    steal_of(&stat, cpu, procfs_ticks())
}

fn steal_of(stat: &str, cpu: u32, per_second: u64) -> Option<u64> {
    let prefix = format!("cpu{cpu} ");
    let line = stat.lines().find_map(|l| l.strip_prefix(&prefix))?;
    let ticks: u64 = line.split_whitespace().nth(7)?.parse().ok()?;
    Some(ticks.saturating_mul(1_000_000_000) / per_second.max(1))
}

fn procfs_ticks() -> u64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    ticks.and_then(|t| u64::try_from(t).ok()).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_of_the_cpu_that_was_asked_for() {
        let stat = "cpu  1 2 3 4 5 6 7 99 0 0\ncpu1 1 2 3 4 5 6 7 8 0 0\ncpu10 1 2 3 4 5 6 7 9 0 0\n";
        assert_eq!(steal_of(stat, 1, 100), Some(80_000_000));
        assert_eq!(steal_of(stat, 10, 100), Some(90_000_000));
        assert_eq!(steal_of(stat, 2, 100), None);
    }
}
