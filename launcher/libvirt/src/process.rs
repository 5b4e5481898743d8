//! QEMU's process: its threads by what they do, its memory by cells. Read from `/proc`; changes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pinion_launcher::certificate::{Range, Role};
use pinion_planner::Cell;

/// Its number, from the file that libvirt writes it to.
pub(crate) fn id(file: &Path) -> io::Result<i32> {
    let text = fs::read_to_string(file)?;
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// All its threads.
pub(crate) fn all_threads(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The control group of its first thread, and of those that are neither a vCPU's nor an I/O thread; none where the host
/// has no single tree of groups.
pub(crate) fn group(pid: i32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// vCPU and I/O threads, by the names that QEMU gives them.
pub(crate) fn threads(pid: i32) -> io::Result<Vec<(Role, i32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let tid = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        // One that has just ended is none.
        let Ok(name) = fs::read_to_string(entry.path().join("comm")) else { continue };
        found.extend(role(name.trim_end()).map(|role| (role, tid)));
    }
    found.sort_unstable();
    Ok(found)
}

/// `CPU 3/KVM`, `IO iothread1`.
fn role(name: &str) -> Option<Role> {
    let vcpu = name.strip_prefix("CPU ").and_then(|n| n.strip_suffix("/KVM")).and_then(|n| n.parse().ok());
    let io = || name.strip_prefix("IO iothread").and_then(|n| n.parse().ok()).map(Role::IoThread);
    vcpu.map(Role::Vcpu).or_else(io)
}

/// Where the memory of each cell lies.
pub(crate) fn memory(pid: i32, cells: &[Cell]) -> io::Result<Vec<(u32, Vec<Range>)>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let policies = fs::read_to_string(format!("/proc/{pid}/numa_maps")).unwrap_or_default();
    Ok(assign(&maps, &policies, cells))
}

/// QEMU's mappings of guest memory all have one name. A cell's has its size, and the kernel says to which node it is
/// bound: where several cells are alike, which is which does not matter. A cell without one has no range, which the
/// certificate says.
fn assign(maps: &str, policies: &str, cells: &[Cell]) -> Vec<(u32, Vec<Range>)> {
    let mut left: Vec<(Range, Option<u32>)> =
        maps.lines().filter_map(guest_memory).map(|range| (range, bound_to(policies, range.start))).collect();
    let mut assigned = Vec::new();
    for cell in cells {
        let fits = |range: &Range| range.bytes == cell.memory_bytes;
        let node = Some(cell.host_node.0);
        let exact = left.iter().position(|(range, bound)| fits(range) && *bound == node);
        let found = exact.or_else(|| left.iter().position(|(range, _)| fits(range)));
        assigned.push((cell.id, found.map(|at| left.swap_remove(at).0).into_iter().collect()));
    }
    assigned
}

fn guest_memory(line: &str) -> Option<Range> {
    line.contains("/memfd:memory-backend-memfd").then_some(())?;
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    Some(Range { start, bytes: end.checked_sub(start)? })
}

/// The node of the policy of the mapping at an address: `ADDRESS bind:1 …`.
fn bound_to(policies: &str, start: u64) -> Option<u32> {
    let prefix = format!("{start:x} ");
    let line = policies.lines().find_map(|l| l.trim_start_matches('0').strip_prefix(&prefix))?;
    let policy = line.split_ascii_whitespace().next()?;
    policy.strip_prefix("bind:").or_else(|| policy.strip_prefix("bind=static:"))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use pinion_machine::{NodeId, PageSize};

    use super::*;

    const MAPS: &str = "\
7f0000000000-7f0010000000 rw-s 00000000 00:01 9 /memfd:memory-backend-memfd (deleted)
7f0020000000-7f0030000000 rw-s 00000000 00:01 8 /memfd:memory-backend-memfd (deleted)
7f0040000000-7f0040010000 rw-p 00000000 00:00 0
";
    const POLICIES: &str = "\
7f0000000000 bind:3 file=/memfd:memory-backend-memfd\\040(deleted) huge dirty=128 N3=128
7f0020000000 bind:2 file=/memfd:memory-backend-memfd\\040(deleted) huge dirty=128 N2=128
";

    fn cell(id: u32, node: u32, bytes: u64) -> Cell {
        Cell {
            id,
            host_node: NodeId(node),
            memory_bytes: bytes,
            page_size_bytes: PageSize::MIB2,
            vcpus: vec![],
            distances: vec![],
        }
    }

    #[test]
    fn cells_are_found_by_size_and_node() {
        let cells = [cell(0, 2, 256 << 20), cell(1, 3, 256 << 20), cell(2, 2, 1 << 20)];
        let starts: Vec<_> = assign(MAPS, POLICIES, &cells)
            .into_iter()
            .map(|(id, ranges)| (id, ranges.first().map(|r| r.start)))
            .collect();
        assert_eq!(starts, [(0, Some(0x7f00_2000_0000)), (1, Some(0x7f00_0000_0000)), (2, None)]);
    }

    #[test]
    fn a_cell_on_the_wrong_node_is_still_looked_at() {
        let assigned = assign(MAPS, POLICIES, &[cell(0, 7, 256 << 20)]);
        assert_eq!(assigned[0].1.len(), 1);
    }

    #[test]
    fn threads_are_known_by_their_names() {
        assert_eq!(role("CPU 12/KVM"), Some(Role::Vcpu(12)));
        assert_eq!(role("IO iothread2"), Some(Role::IoThread(2)));
        for name in ["qemu-system-x86", "CPU /KVM", "CPU 1/TCG", "IO mon_iothread", "worker"] {
            assert_eq!(role(name), None, "{name}");
        }
    }
}
