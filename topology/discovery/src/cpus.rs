//! CPUs, cores, dies, packages and L3 caches of a tree.

use std::collections::BTreeMap;

use pinion_machine::{CpuId, CpuSet, DieId, PackageId};

use crate::draft::CoreDraft;
use crate::tree::{Tree, TreeError};

const CPUS: &str = "sys/devices/system/cpu";
pub(crate) const CPU_LIST: &str = "a list of CPUs such as 0-3,8";

/// Online CPUs, and those that exist and are offline.
///
/// # Errors
/// When a list is malformed or no CPU is online.
pub(crate) fn online_and_offline(tree: &Tree) -> Result<(CpuSet, CpuSet), TreeError> {
    let list = |name: &str| tree.parse::<CpuSet>(&format!("{CPUS}/{name}"), CPU_LIST);
    let online = match list("online")? {
        Some(online) => online,
        // Trees gathered from old kernels: each CPU that shows its place is online.
        None => shown(tree)?,
    };
    if online.is_empty() {
        return Err(TreeError::NoCpus(tree.path(&format!("{CPUS}/online"))));
    }
    let present = list("present")?.unwrap_or_default();
    Ok((online.clone(), present.difference(&online)))
}

fn shown(tree: &Tree) -> Result<CpuSet, TreeError> {
    let cpus = tree.numbered(CPUS, "cpu")?;
    Ok(cpus.into_iter().filter(|cpu| tree.is_dir(&format!("{CPUS}/cpu{cpu}/topology"))).map(CpuId).collect())
}

/// Cores, each from the files of its first CPU: the kernel says the same in those of the others.
///
/// # Errors
/// When a file is malformed.
pub(crate) fn cores(tree: &Tree, online: &CpuSet) -> Result<Vec<CoreDraft>, TreeError> {
    let mut left = online.clone();
    let mut cores = Vec::new();
    while let Some(cpu) = left.first() {
        let topology = format!("{CPUS}/cpu{cpu}/topology");
        let siblings = |name: &str| tree.parse::<CpuSet>(&format!("{topology}/{name}"), CPU_LIST);
        let mut cpus = match siblings("core_cpus_list")? {
            Some(cpus) => cpus,
            None => siblings("thread_siblings_list")?.unwrap_or_default(),
        };
        cpus.insert(cpu);
        // Minus one is what the kernel says where it does not know.
        let id = |name: &str| -> Result<Option<u32>, TreeError> {
            let id = tree.parse::<i64>(&format!("{topology}/{name}"), "a number")?;
            Ok(id.and_then(|id| u32::try_from(id).ok()))
        };
        let package = PackageId(id("physical_package_id")?.unwrap_or(0));
        let die = id("die_id")?.map(DieId);
        left = left.difference(&cpus);
        cores.push(CoreDraft { cpus, package, die });
    }
    Ok(cores)
}

/// The last-level caches of level 3: who shares each, and its size.
///
/// # Errors
/// When a file is malformed.
pub(crate) fn l3(tree: &Tree, online: &CpuSet) -> Result<Vec<(CpuSet, u64)>, TreeError> {
    let mut left = online.clone();
    let mut domains = Vec::new();
    while let Some(cpu) = left.first() {
        left.remove(cpu);
        let folder = format!("{CPUS}/cpu{cpu}/cache");
        for index in tree.numbered(&folder, "index")? {
            let cache = format!("{folder}/index{index}");
            if tree.parse::<u32>(&format!("{cache}/level"), "a cache level")? != Some(3) {
                continue;
            }
            let shared = tree.parse::<CpuSet>(&format!("{cache}/shared_cpu_list"), CPU_LIST)?;
            let mut cpus = shared.unwrap_or_default();
            cpus.insert(cpu);
            left = left.difference(&cpus);
            domains.push((cpus, cache_size(tree, &format!("{cache}/size"))?));
            break;
        }
    }
    Ok(domains)
}

/// `32768K`, in bytes; 0 where not known.
fn cache_size(tree: &Tree, path: &str) -> Result<u64, TreeError> {
    let Some(text) = tree.text(path)? else { return Ok(0) };
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match text.get(digits.len()..) {
        Some("K") => 10,
        Some("M") => 20,
        Some("G") => 30,
        _ => 0,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(1 << shift));
    bytes.ok_or_else(|| tree.malformed(path, &text, "a cache size such as 32768K"))
}

/// The processor's name by package, from `/proc/cpuinfo`.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn models(tree: &Tree) -> Result<BTreeMap<PackageId, String>, TreeError> {
    let mut models = BTreeMap::new();
    let text = tree.text("proc/cpuinfo")?.unwrap_or_default();
    for processor in text.split("\n\n") {
        let field = |name: &str| {
            processor.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim())
            })
        };
        let package = field("physical id").and_then(|id| id.parse().ok()).unwrap_or(0);
        if let Some(model) = field("model name") {
            let name = || model.chars().filter(|c| !c.is_control()).take(128).collect();
            models.entry(PackageId(package)).or_insert_with(name);
        }
    }
    Ok(models)
}
