//! AMD's own CPUID leaves for topology and caches (APM 3, appendix E.4.15 and E.4.16).
//!
//! Pure; called by `cpuid` only.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use crate::apic_id::{ApicId, Topology};

/// Cache topology: one entry per cache, then one of type 0.
pub(crate) const CACHES: u32 = 0x8000_001d;
/// Processor topology.
pub(crate) const TOPOLOGY: u32 = 0x8000_001e;
/// The two leaves above exist.
pub(crate) const EXT1_ECX_TOPOEXT: u32 = 1 << 22;

const L1: u32 = 0x8000_0005;
const L2_L3: u32 = 0x8000_0006;
const DATA: u32 = 1;
const INSTRUCTIONS: u32 = 2;
const UNIFIED: u32 = 3;
const SELF_INITIALISING: u32 = 1 << 8;

struct Cache {
    kind: u32,
    level: u32,
    bytes: u32,
    ways: u32,
    line: u32,
}

/// Extended APIC id, threads per core, core id and node id of a vCPU.
pub(crate) fn set_topology(leaf: &mut kvm_cpuid_entry2, topology: &Topology, id: ApicId) {
    leaf.eax = id.0;
    let core = id.0 >> topology.thread_shift() & 0xff;
    leaf.ebx = topology.threads.saturating_sub(1) << 8 | core;
    leaf.ecx = id.0 >> topology.package_shift() & 0xff;
}

/// The cache leaves that follow from the legacy ones, without who shares them.
pub(crate) fn caches(entries: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
    let leaf = |function| entries.iter().find(|e| e.function == function).copied().unwrap_or_default();
    let (l1, l23) = (leaf(L1), leaf(L2_L3));
    let first = |register: u32, kind| Cache {
        kind,
        level: 1,
        bytes: (register >> 24) << 10,
        ways: register >> 16 & 0xff,
        line: register & 0xff,
    };
    let l2 = Cache {
        kind: UNIFIED,
        level: 2,
        bytes: (l23.ecx >> 16) << 10,
        ways: ways(l23.ecx >> 12 & 0xf),
        line: l23.ecx & 0xff,
    };
    let l3 = Cache {
        kind: UNIFIED,
        level: 3,
        bytes: (l23.edx >> 18) << 19,
        ways: ways(l23.edx >> 12 & 0xf),
        line: l23.edx & 0xff,
    };
    let present = [first(l1.ecx, DATA), first(l1.edx, INSTRUCTIONS), l2, l3];
    let mut leaves: Vec<_> = (0u32..).zip(present.iter().filter_map(describe)).map(numbered).collect();
    let end = u32::try_from(leaves.len()).unwrap_or(0);
    leaves.push(numbered((end, kvm_cpuid_entry2::default())));
    leaves
}

fn numbered((index, leaf): (u32, kvm_cpuid_entry2)) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function: CACHES, index, flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX, ..leaf }
}

/// `None` for a cache that is absent, or whose numbers do not fit together.
fn describe(cache: &Cache) -> Option<kvm_cpuid_entry2> {
    let way = cache.ways.checked_mul(cache.line).filter(|w| *w > 0)?;
    let sets = cache.bytes.checked_div(way).filter(|s| *s > 0)?;
    Some(kvm_cpuid_entry2 {
        eax: cache.kind | cache.level << 5 | SELF_INITIALISING,
        ebx: (cache.line - 1) | ((cache.ways - 1) << 22),
        ecx: sets - 1,
        ..kvm_cpuid_entry2::default()
    })
}

/// Ways by their code (APM 3, table E-4); 0xf, fully associative, is given as 16.
fn ways(code: u32) -> u32 {
    match code {
        1..=4 => code,
        5 => 6,
        6 => 8,
        8 | 9 | 0xf => 16,
        0xa => 32,
        0xb => 48,
        0xc => 64,
        0xd => 96,
        0xe => 128,
        _ => 0,
    }
}
