//! Registers of the boot vCPU at a kernel's entry.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vmm_boot::{BootEntry, Protocol, SEGMENTS, Segment};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 always reads as one.
const RFLAGS: u64 = 2;
const GDT_LIMIT: u16 = 0x1f;
/// A busy 32-bit TSS, which VMX wants in TR.
const TASK_ACCESS: u8 = 0x8b;

/// General registers at entry.
pub(crate) fn general(entry: &BootEntry) -> kvm_regs {
    kvm_regs {
        rip: entry.rip.0,
        rsp: entry.rsp.0,
        rbp: entry.rsp.0,
        rsi: entry.rsi.0,
        rbx: entry.rbx.0,
        rflags: RFLAGS,
        ..kvm_regs::default()
    }
}

/// Special registers at entry, on top of those a processor has after reset.
pub(crate) fn special(reset: &kvm_sregs, entry: &BootEntry) -> kvm_sregs {
    let mut sregs = *reset;
    let of_protocol = SEGMENTS.iter().find(|(protocol, ..)| *protocol == entry.protocol);
    if let Some((_, code, data)) = of_protocol {
        sregs.cs = segment(code);
        let data = segment(data);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    }
    sregs.tr = segment(&Segment { selector: 0x20, access: TASK_ACCESS, flags: 0 });
    (sregs.tr.base, sregs.tr.limit) = (0, 0x67);
    (sregs.gdt.base, sregs.gdt.limit) = (entry.gdt.0, GDT_LIMIT);
    (sregs.idt.base, sregs.idt.limit) = (0, 0);
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    if entry.protocol == Protocol::Linux64 {
        sregs.cr0 |= CR0_PG;
        sregs.cr3 = entry.cr3.0;
        sregs.cr4 |= CR4_PAE;
        sregs.efer |= EFER_LME | EFER_LMA;
    }
    sregs
}

fn segment(segment: &Segment) -> kvm_segment {
    let (access, flags) = (segment.access, segment.flags);
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: segment.selector,
        type_: access & 0xf,
        s: access >> 4 & 1,
        dpl: access >> 5 & 3,
        present: access >> 7 & 1,
        avl: flags & 1,
        l: flags >> 1 & 1,
        db: flags >> 2 & 1,
        g: flags >> 3 & 1,
        ..kvm_segment::default()
    }
}
