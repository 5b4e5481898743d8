//! Memory: how much, and on which pages.

use std::collections::BTreeSet;

use pinion_api::{HUGE_PAGES, Hugepages, InstanceSpec, Memory, ORDINARY_PAGE, Quantity};

use super::Fault;
use super::source::Part;

/// What libvirt takes where pages have no size: the host's default, which is this on x86-64.
const USUAL_HUGE_PAGE: u64 = 2 << 20;

/// Most sizes of pages that are read: there are two.
const MOST_PAGES: usize = 64;

pub(super) fn memory(domain: Part<'_>, spec: &mut InstanceSpec) {
    let Some(element) = domain.child("memory") else {
        domain.fault(|path| Fault::Missing { path, what: "memory" });
        return;
    };
    element.gives("spec.domain.memory");
    if let Some(dump) = element.attribute("dumpCore") {
        element.note_attribute(
            "dumpCore",
            format!("{dump:?}: not carried over: dumps are the host's to configure"),
        );
    }
    let Some(given) = element.bytes() else { return };
    let (cells, together) = of_cells(domain);
    let bytes = together.unwrap_or(given);
    if bytes != given {
        element
            .note(format!("{given} bytes: the cells have {bytes} together, and that is what the guest has"));
    }
    if let Some(current) = domain.child("currentMemory")
        && current.bytes().is_some_and(|now| now < bytes)
    {
        current.note("the guest has all its memory from the start: there is no balloon");
    }
    let page = domain.child("memoryBacking").and_then(|element| backing(element, cells));
    let whole = page.unwrap_or(ORDINARY_PAGE);
    let Some(rounded) = bytes.checked_next_multiple_of(whole) else {
        let text = bytes.to_string();
        element.fault(|path| Fault::TooLarge { path, text });
        return;
    };
    if rounded != bytes {
        element.note(format!("{bytes} bytes are no whole number of pages: rounded up to {rounded}"));
    }
    let hugepages = page.map(|bytes| Hugepages { page_size: Some(page_name(bytes)) });
    spec.domain.memory =
        Some(Memory { guest: Some(Quantity::from_bytes(rounded)), hugepages, ..Memory::default() });
}

/// How many cells there are, and the memory of all where each has some: libvirt goes by that.
fn of_cells(domain: Part<'_>) -> (usize, Option<u64>) {
    let numa = domain.child("cpu").and_then(|cpu| cpu.child("numa"));
    let cells: Vec<Part<'_>> = numa.into_iter().flat_map(|numa| numa.children("cell")).collect();
    let bytes = |total: u64, cell: &Part<'_>| total.checked_add(cell.bytes_of("memory")?);
    let total = cells.iter().try_fold(0, bytes);
    (cells.len(), total.filter(|bytes| *bytes > 0))
}

/// The size of the huge pages, where it has some; the rest is how Pinion backs guests anyway, or noted.
fn backing(backing: Part<'_>, cells: usize) -> Option<u64> {
    let page = backing.child("hugepages").and_then(|element| hugepages(element, cells));
    // Pages of guests are never merged.
    backing.has("nosharepages");
    if let Some(locked) = backing.child("locked") {
        locked.note("memory is there from the start and, for real-time vCPUs, locked");
    }
    backing.child("source").inspect(|source| {
        source.attribute("type");
    });
    if let Some(access) = backing.child("access")
        && access.attribute("mode") == Some("private")
    {
        access.note("how memory is mapped is Pinion's own");
    }
    if let Some(allocation) = backing.child("allocation") {
        allocation.attribute("threads");
        if allocation.attribute("mode") == Some("ondemand") {
            allocation.note("memory is there before the guest runs, not on demand");
        }
    }
    page
}

fn hugepages(hugepages: Part<'_>, cells: usize) -> Option<u64> {
    let mut sizes: Vec<u64> = Vec::new();
    let (mut given, mut bounded, mut covered) = (false, false, BTreeSet::new());
    for page in hugepages.children("page").take(MOST_PAGES) {
        given = true;
        page.gives("spec.domain.memory.hugepages");
        if let Some(cells) = page.cpus("nodeset") {
            bounded = true;
            covered.extend(cells);
        }
        sizes.extend(page.bytes_of("size"));
    }
    hugepages.gives("spec.domain.memory.hugepages");
    sizes.sort_unstable();
    sizes.dedup();
    sizes.retain(|bytes| *bytes > ORDINARY_PAGE);
    if let [first, _, ..] = sizes.as_slice() {
        hugepages.note(format!("a guest has huge pages of one size: all of {}", page_name(*first)));
    }
    if bounded && covered.len() < cells {
        hugepages.note("all cells of the guest have pages of that size");
    }
    if given { sizes.first().copied() } else { Some(USUAL_HUGE_PAGE) }
}

fn page_name(bytes: u64) -> String {
    let known = HUGE_PAGES.iter().find(|(_, size)| *size == bytes);
    known.map_or_else(|| Quantity::from_bytes(bytes).to_string(), |(name, _)| (*name).to_owned())
}
