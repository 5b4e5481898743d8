//! CPUID as the guest sees it: KVM's supported set, with the guest's own topology.
//!
//! Pure: from KVM's table to the guest's. Sources: Intel SDM 2A, CPUID; AMD APM 3, appendix E;
//! Documentation/virt/kvm/x86/cpuid.rst.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use crate::amd;
use crate::apic_id::{ApicId, Topology};

/// What the guest is told about its vCPUs beyond their topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// Nothing.
    None,
    /// vCPUs are never preempted (`KVM_HINTS_REALTIME`): paravirtual spinlocks are not worth it.
    Dedicated,
}

/// The same for all vCPUs of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidProfile {
    /// Shape.
    pub topology: Topology,
    /// Bits of the APIC id below which vCPUs share the last-level cache. Never more than a NUMA
    /// cell holds: Linux refuses a cache that spans cells.
    pub llc_shift: u32,
    /// Hints.
    pub hints: Hints,
}

/// CPUID of one vCPU.
#[derive(Clone, Debug)]
pub struct GuestCpuid(pub(crate) CpuId);

const LEAF1_ECX_VMX: u32 = 1 << 5;
const LEAF1_ECX_X2APIC: u32 = 1 << 21;
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;
const EXT1_ECX_CMP_LEGACY: u32 = 1 << 1;
const EXT1_ECX_SVM: u32 = 1 << 2;
const KVM_HINTS_REALTIME: u32 = 1;
const HYPERVISOR: u32 = 0x4000_0000;
const TIMING: u32 = 0x4000_0010;
const LEVEL_SMT: u32 = 1;
const LEVEL_CORE: u32 = 2;
const AMD: [u32; 3] =
    [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"enti"), u32::from_le_bytes(*b"cAMD")];

impl GuestCpuid {
    /// The guest's table for one vCPU. `tsc_khz` is told to the guest where its TSC is invariant.
    #[must_use]
    pub fn new(supported: &CpuId, profile: &CpuidProfile, id: ApicId, tsc_khz: Option<u32>) -> Self {
        let mut entries: Vec<kvm_cpuid_entry2> =
            supported.as_slice().iter().filter(|e| !matches!(e.function, 0xb | 0x1f)).copied().collect();
        let amd = entries.iter().any(|e| e.function == 0 && [e.ebx, e.edx, e.ecx] == AMD);
        for entry in &mut entries {
            adjust(entry, profile, id, amd);
        }
        if amd {
            extend_amd(&mut entries, profile, id);
        }
        let highest = entries.iter().find(|e| e.function == 0).map_or(0, |e| e.eax);
        timing(&mut entries, tsc_khz);
        if highest >= 0xb {
            entries.extend(extended_topology(0xb, profile, id));
        }
        if highest >= 0x1f {
            entries.extend(extended_topology(0x1f, profile, id));
        }
        Self(CpuId::from_entries(&entries).unwrap_or_else(|_| supported.clone()))
    }

    /// Physical address bits that the guest sees.
    #[must_use]
    pub fn physical_bits(supported: &CpuId) -> u8 {
        const WITHOUT_LEAF: u8 = 36;
        let leaf = supported.as_slice().iter().find(|e| e.function == 0x8000_0008);
        leaf.map_or(WITHOUT_LEAF, |e| e.eax.to_le_bytes()[0])
    }
}

fn adjust(entry: &mut kvm_cpuid_entry2, profile: &CpuidProfile, id: ApicId, amd: bool) {
    let topology = &profile.topology;
    let per_socket = topology.per_socket();
    match entry.function {
        1 => {
            entry.ecx |= LEAF1_ECX_HYPERVISOR | LEAF1_ECX_X2APIC | LEAF1_ECX_TSC_DEADLINE;
            entry.ecx &= !LEAF1_ECX_VMX;
            let logical = (1u32 << topology.package_shift()).min(0xff);
            entry.ebx = entry.ebx & 0xffff | logical << 16 | (id.0 & 0xff) << 24;
            set(&mut entry.edx, LEAF1_EDX_HTT, per_socket > 1);
        }
        // Deterministic cache parameters: who shares, and cores per package.
        4 if entry.eax & 0x1f != 0 => {
            let sharing = sharing(profile, entry.eax);
            let cores = (1u32 << (topology.package_shift() - topology.thread_shift())) - 1;
            entry.eax = entry.eax & 0x3fff | sharing << 14 | (cores & 0x3f) << 26;
        }
        0x4000_0001 if profile.hints == Hints::Dedicated => entry.edx |= KVM_HINTS_REALTIME,
        0x8000_0001 => {
            entry.ecx &= !EXT1_ECX_SVM;
            if amd {
                set(&mut entry.ecx, EXT1_ECX_CMP_LEGACY, per_socket > 1);
                entry.ecx |= amd::EXT1_ECX_TOPOEXT;
            }
        }
        0x8000_0008 if amd => {
            let count = per_socket.saturating_sub(1).min(0xff);
            entry.ecx = entry.ecx & !0xf0ff | topology.package_shift() << 12 | count;
        }
        0x8000_0000 if amd => entry.eax = entry.eax.max(amd::TOPOLOGY),
        amd::CACHES if entry.eax & 0x1f != 0 => {
            entry.eax = entry.eax & 0x3fff | sharing(profile, entry.eax) << 14
        }
        amd::TOPOLOGY => amd::set_topology(entry, topology, id),
        _ => {}
    }
}

/// vCPUs that share a cache, less one, by its leaf's EAX.
fn sharing(profile: &CpuidProfile, eax: u32) -> u32 {
    let shift = if eax >> 5 & 7 == 3 { profile.llc_shift } else { profile.topology.thread_shift() };
    ((1u32 << shift) - 1) & 0xfff
}

/// Adds the leaves by which Linux tells SMT siblings and shared caches on AMD processors, where the
/// host does not have them: they only describe.
fn extend_amd(entries: &mut Vec<kvm_cpuid_entry2>, profile: &CpuidProfile, id: ApicId) {
    if !entries.iter().any(|e| e.function == amd::CACHES && e.eax & 0x1f != 0) {
        entries.retain(|e| e.function != amd::CACHES);
        let mut caches = amd::caches(entries);
        for cache in caches.iter_mut().filter(|c| c.eax != 0) {
            cache.eax |= sharing(profile, cache.eax) << 14;
        }
        entries.extend(caches);
    }
    if !entries.iter().any(|e| e.function == amd::TOPOLOGY) {
        let mut leaf = kvm_cpuid_entry2 { function: amd::TOPOLOGY, ..kvm_cpuid_entry2::default() };
        amd::set_topology(&mut leaf, &profile.topology, id);
        entries.push(leaf);
    }
}

/// The hypervisor's timing leaf: the TSC's and the local APIC timer's frequencies.
fn timing(entries: &mut Vec<kvm_cpuid_entry2>, tsc_khz: Option<u32>) {
    const INVARIANT_TSC: u32 = 1 << 8;
    /// KVM's local APICs count at 1 GHz.
    const APIC_BUS_KHZ: u32 = 1_000_000;
    let invariant = entries.iter().any(|e| e.function == 0x8000_0007 && e.edx & INVARIANT_TSC != 0);
    let Some(eax) = tsc_khz.filter(|_| invariant) else { return };
    let Some(base) = entries.iter_mut().find(|e| e.function == HYPERVISOR) else { return };
    base.eax = base.eax.max(TIMING);
    entries.retain(|e| e.function != TIMING);
    entries.push(kvm_cpuid_entry2 { function: TIMING, eax, ebx: APIC_BUS_KHZ, ..Default::default() });
}

fn set(register: &mut u32, bit: u32, on: bool) {
    if on { *register |= bit } else { *register &= !bit }
}

/// Leaves 0xb and 0x1f: threads, cores, and the end of the list.
fn extended_topology(function: u32, profile: &CpuidProfile, id: ApicId) -> [kvm_cpuid_entry2; 3] {
    let topology = &profile.topology;
    let level = |index: u32, shift: u32, count: u32, kind: u32| kvm_cpuid_entry2 {
        function,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count & 0xffff,
        ecx: kind << 8 | index,
        edx: id.0,
        ..kvm_cpuid_entry2::default()
    };
    [
        level(0, topology.thread_shift(), topology.threads, LEVEL_SMT),
        level(1, topology.package_shift(), topology.per_socket(), LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, eax: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ..kvm_cpuid_entry2::default() }
    }

    fn guest(entries: &[kvm_cpuid_entry2], id: u32) -> Vec<kvm_cpuid_entry2> {
        let supported = CpuId::from_entries(entries).unwrap();
        let topology = Topology { sockets: 2, cores: 2, threads: 2 };
        let profile = CpuidProfile { topology, llc_shift: 2, hints: Hints::Dedicated };
        GuestCpuid::new(&supported, &profile, ApicId(id), Some(2_500_000)).0.as_slice().to_vec()
    }

    fn leaf(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries.iter().find(|e| e.function == function && e.index == index).unwrap()
    }

    #[test]
    fn every_leaf_says_the_same_apic_id() {
        let entries = guest(&[entry(0, 0x1f), entry(1, 0), entry(0xb, 7), entry(0x8000_001e, 0)], 5);
        assert_eq!(leaf(&entries, 1, 0).ebx >> 24, 5);
        assert_eq!(leaf(&entries, 0xb, 0).edx, 5);
        assert_eq!(leaf(&entries, 0x1f, 1).edx, 5);
        assert_eq!(leaf(&entries, 0x8000_001e, 0).eax, 5);
    }

    #[test]
    fn extended_topology_gives_threads_then_cores() {
        let entries = guest(&[entry(0, 0xb)], 0);
        let (threads, cores, end) = (leaf(&entries, 0xb, 0), leaf(&entries, 0xb, 1), leaf(&entries, 0xb, 2));
        assert_eq!((threads.eax, threads.ebx, threads.ecx), (1, 2, 0x100));
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (2, 4, 0x201));
        assert_eq!((end.eax, end.ebx, end.ecx), (0, 0, 2));
    }

    #[test]
    fn nested_virtualisation_is_hidden_and_the_hypervisor_shown() {
        let mut first = entry(1, 0);
        first.ecx = LEAF1_ECX_VMX;
        let mut extended = entry(0x8000_0001, 0);
        extended.ecx = EXT1_ECX_SVM;
        let entries = guest(&[entry(0, 0xb), first, extended], 0);
        assert_eq!(leaf(&entries, 1, 0).ecx & (LEAF1_ECX_VMX | LEAF1_ECX_HYPERVISOR), LEAF1_ECX_HYPERVISOR);
        assert_eq!(leaf(&entries, 0x8000_0001, 0).ecx & EXT1_ECX_SVM, 0);
    }

    #[test]
    fn amd_guests_see_siblings_and_caches_even_where_the_host_does_not_say() {
        let [ebx, edx, ecx] = AMD;
        let vendor = kvm_cpuid_entry2 { ebx, ecx, edx, ..entry(0, 0xb) };
        let l1 = kvm_cpuid_entry2 {
            ecx: 32 << 24 | 8 << 16 | 64,
            edx: 32 << 24 | 8 << 16 | 64,
            ..entry(0x8000_0005, 0)
        };
        let l2 = kvm_cpuid_entry2 {
            ecx: 512 << 16 | 6 << 12 | 64,
            edx: 64 << 18 | 9 << 12 | 64,
            ..entry(0x8000_0006, 0)
        };
        let entries = guest(&[vendor, entry(0x8000_0000, 0x8000_0008), entry(0x8000_0001, 0), l1, l2], 3);
        assert_eq!(leaf(&entries, 0x8000_0000, 0).eax, 0x8000_001e);
        assert_ne!(leaf(&entries, 0x8000_0001, 0).ecx & amd::EXT1_ECX_TOPOEXT, 0);
        assert_eq!(leaf(&entries, 0x8000_001e, 0).ebx, 1 << 8 | 1);
        let caches: Vec<_> = (0..4).map(|i| leaf(&entries, 0x8000_001d, i)).collect();
        let sharing: Vec<_> = caches.iter().map(|c| c.eax >> 14 & 0xfff).collect();
        assert_eq!(sharing, [1, 1, 1, 3]);
        let bytes = |c: &kvm_cpuid_entry2| ((c.ebx & 0xfff) + 1) * ((c.ebx >> 22) + 1) * (c.ecx + 1);
        assert_eq!(caches.iter().map(bytes).collect::<Vec<_>>(), [32 << 10, 32 << 10, 512 << 10, 32 << 20]);
        assert_eq!(leaf(&entries, 0x8000_001d, 4).eax & 0x1f, 0);
    }

    #[test]
    fn dedicated_vcpus_are_told_so() {
        assert_eq!(leaf(&guest(&[entry(0x4000_0001, 0)], 0), 0x4000_0001, 0).edx & 1, 1);
    }

    #[test]
    fn an_invariant_tsc_comes_with_its_frequency() {
        let invariant = kvm_cpuid_entry2 { edx: 1 << 8, ..entry(0x8000_0007, 0) };
        let entries = guest(&[entry(0x4000_0000, 0x4000_0001), invariant], 0);
        assert_eq!(leaf(&entries, 0x4000_0000, 0).eax, 0x4000_0010);
        assert_eq!(leaf(&entries, 0x4000_0010, 0).eax, 2_500_000);
        let entries = guest(&[entry(0x4000_0000, 0x4000_0001), entry(0x8000_0007, 0)], 0);
        assert!(entries.iter().all(|e| e.function != 0x4000_0010));
    }
}
