//! NUMA nodes of a tree: memory, huge pages, distances.

use pinion_machine::{CpuSet, Distances, HugePagePool, NodeId, PageSize};

use crate::cpus::CPU_LIST;
use crate::draft::NodeDraft;
use crate::tree::{Tree, TreeError};

const NODES: &str = "sys/devices/system/node";

/// Nodes and their distances. A kernel without NUMA has one node, 0, with everything.
///
/// # Errors
/// When a file is malformed.
pub(crate) fn read(tree: &Tree, online: &CpuSet) -> Result<(Vec<NodeDraft>, Distances), TreeError> {
    let ids: Vec<NodeId> = tree.numbered(NODES, "node")?.into_iter().map(NodeId).collect();
    if ids.is_empty() {
        return Ok((vec![whole_machine(tree, online)?], Distances::default()));
    }
    let watermark = Watermark::read(tree)?;
    let nodes = ids.iter().map(|id| node(tree, *id, &watermark)).collect::<Result<_, _>>()?;
    Ok((nodes, distances(tree, ids)?))
}

fn node(tree: &Tree, id: NodeId, watermark: &Watermark) -> Result<NodeDraft, TreeError> {
    let folder = format!("{NODES}/node{id}");
    let cpus = tree.parse::<CpuSet>(&format!("{folder}/cpulist"), CPU_LIST)?.unwrap_or_default();
    let memory = Memory::read(tree, &format!("{folder}/meminfo"))?;
    let huge_pages = pools(tree, &format!("{folder}/hugepages"))?;
    Ok(NodeDraft {
        id,
        cpus,
        memory_bytes: memory.total,
        available_bytes: memory.available(watermark),
        huge_pages,
    })
}

fn whole_machine(tree: &Tree, online: &CpuSet) -> Result<NodeDraft, TreeError> {
    let memory = Memory::read(tree, "proc/meminfo")?;
    let watermark = Watermark { min: Watermark::read(tree)?.min, of: memory.total };
    Ok(NodeDraft {
        id: NodeId(0),
        cpus: online.clone(),
        memory_bytes: memory.total,
        available_bytes: memory.available(&watermark),
        huge_pages: pools(tree, "sys/kernel/mm/hugepages")?,
    })
}

/// What the kernel keeps free: `vm.min_free_kbytes`, shared by nodes as they have memory.
struct Watermark {
    min: u64,
    of: u64,
}

impl Watermark {
    fn read(tree: &Tree) -> Result<Self, TreeError> {
        let kib = tree.parse::<u64>("proc/sys/vm/min_free_kbytes", "a number of KiB")?.unwrap_or(0);
        Ok(Self { min: kib.saturating_mul(1024), of: Memory::read(tree, "proc/meminfo")?.total })
    }

    /// The low watermark of a node: the kernel's is a quarter above the minimum.
    fn low(&self, node: u64) -> u64 {
        let share = u128::from(self.min) * 5 / 4 * u128::from(node) / u128::from(self.of.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// Bytes, from `meminfo` of a node or of the machine.
#[derive(Default)]
struct Memory {
    total: u64,
    free: u64,
    file_cache: u64,
    reclaimable_slab: u64,
}

impl Memory {
    fn read(tree: &Tree, path: &str) -> Result<Self, TreeError> {
        let mut memory = Self::default();
        for line in tree.text(path)?.unwrap_or_default().lines() {
            // `Node 0 MemTotal: 7039188 kB`, and without the first two words in /proc.
            let mut words = line.split_whitespace().skip_while(|word| !word.ends_with(':'));
            let Some(key) = words.next() else { continue };
            let slot = match key {
                "MemTotal:" => &mut memory.total,
                "MemFree:" => &mut memory.free,
                "Active(file):" | "Inactive(file):" => &mut memory.file_cache,
                "SReclaimable:" => &mut memory.reclaimable_slab,
                _ => continue,
            };
            let kib = words.next().and_then(|word| word.parse::<u64>().ok());
            let bytes = kib.and_then(|kib| kib.checked_mul(1024));
            let sum = bytes.and_then(|bytes| slot.checked_add(bytes));
            *slot = sum.ok_or_else(|| tree.malformed(path, line, "an amount in kB"))?;
        }
        Ok(memory)
    }

    /// As the kernel reckons `MemAvailable`, for a node: what is free above the low
    /// watermark, and file cache and slab of which half, or the watermark if that is
    /// less, is left alone.
    fn available(&self, watermark: &Watermark) -> u64 {
        let low = watermark.low(self.total);
        let part = |bytes: u64| bytes - (bytes / 2).min(low);
        let reclaimable = part(self.file_cache).saturating_add(part(self.reclaimable_slab));
        self.free.saturating_sub(low).saturating_add(reclaimable)
    }
}

fn pools(tree: &Tree, folder: &str) -> Result<Vec<HugePagePool>, TreeError> {
    let mut pools = Vec::new();
    for name in tree.list(folder)? {
        let size = name.strip_prefix("hugepages-").and_then(|rest| rest.strip_suffix("kB"));
        let bytes = size.and_then(|kib| kib.parse::<u64>().ok()?.checked_mul(1024));
        let Some(page_size) = bytes.and_then(|bytes| PageSize::new(bytes).ok()) else { continue };
        let count = |file| tree.parse::<u64>(&format!("{folder}/{name}/{file}"), "a number of pages");
        let (total, free) = (count("nr_hugepages")?.unwrap_or(0), count("free_hugepages")?.unwrap_or(0));
        pools.push(HugePagePool { page_size, total, free });
    }
    Ok(pools)
}

/// The kernel writes one column per online node, in ascending order. Where any node does
/// not say, nothing is known.
fn distances(tree: &Tree, ids: Vec<NodeId>) -> Result<Distances, TreeError> {
    let mut rows = Vec::with_capacity(ids.len());
    for id in &ids {
        let path = format!("{NODES}/node{id}/distance");
        let Some(text) = tree.text(&path)? else { return Ok(Distances::default()) };
        let row: Result<Vec<u32>, _> = text.split_whitespace().map(str::parse).collect();
        match row {
            Ok(row) if row.len() == ids.len() => rows.push(row),
            _ => return Err(tree.malformed(&path, &text, "one distance per node")),
        }
    }
    Ok(Distances::new(ids, rows).unwrap_or_default())
}
