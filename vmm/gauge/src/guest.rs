//! The bare-metal guest: a page of code, and what it writes to.
//!
//! Runs on the gauge's thread, which is pinned. 32-bit protected mode without paging: the fewest things that could cause
//! an exit.
//!
//! | guest-physical | what |
//! | --- | --- |
//! | `0x1000` | code |
//! | `0x2000` | stop, threshold, number of long gaps, long gaps without room: 32 bits each |
//! | `0x10_0000` | how many gaps of each length below the threshold, 64 bits each |
//! | `0x20_0000` | long gaps: time-stamp at the end, length; 64 bits each |

use std::arch::{global_asm, x86_64::_rdtsc};
use std::sync::atomic::Ordering;

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use libc::{EAGAIN, EINTR, EINVAL};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::record::{Gap, LONG_GAP_CYCLES, LONGEST_LOG};
use crate::thread::GaugeError;

const CODE: u64 = 0x1000;
const STOP: u64 = 0x2000;
const THRESHOLD: u64 = 0x2004;
const LOGGED: u64 = 0x2008;
const DROPPED: u64 = 0x200c;
const COUNTS: u64 = 0x10_0000;
const LOG: u64 = 0x20_0000;
const SIZE: usize = 0x20_0000 + LONGEST_LOG * 16;
/// Where the guest says that it has stopped.
const DONE_PORT: u16 = 0xf4;
/// `IA32_TIME_STAMP_COUNTER` (SDM volume 4, table 2-2).
const IA32_TSC: u32 = 0x10;

// The constants above are written out: an assembler knows no Rust.
global_asm!(
    ".pushsection .rodata.pinion_gauge, \"a\"",
    ".code32",
    ".globl pinion_gauge_start",
    "pinion_gauge_start:",
    "rdtsc",
    "movl %eax, %ecx",
    "movl %edx, %ebx",
    "2:",
    "rdtsc",
    // ecx and ebx are the last reading; eax and edx become the gap.
    "movl %eax, %ebp",
    "subl %ecx, %eax",
    "movl %ebp, %ecx",
    "movl %edx, %ebp",
    "sbbl %ebx, %edx",
    "movl %ebp, %ebx",
    "jnz 3f",
    "cmpl 0x2004, %eax",
    "jae 3f",
    "addl $1, 0x100000(,%eax,8)",
    "adcl $0, 0x100004(,%eax,8)",
    "4:",
    "cmpl $0, 0x2000",
    "je 2b",
    "movl $0xf4, %edx",
    "outb %al, %dx",
    "hlt",
    // A long gap: kept, if there is room.
    "3:",
    "movl 0x2008, %ebp",
    "cmpl $0x40000, %ebp",
    "jae 5f",
    "shll $4, %ebp",
    "movl %ecx, 0x200000(%ebp)",
    "movl %ebx, 0x200004(%ebp)",
    "movl %eax, 0x200008(%ebp)",
    "movl %edx, 0x20000c(%ebp)",
    "addl $1, 0x2008",
    "jmp 4b",
    "5:",
    "addl $1, 0x200c",
    "jmp 4b",
    ".globl pinion_gauge_end",
    "pinion_gauge_end:",
    ".code64",
    ".popsection",
    options(att_syntax)
);

unsafe extern "C" {
    static pinion_gauge_start: u8;
    static pinion_gauge_end: u8;
}

fn code() -> &'static [u8] {
    let (start, end) = (&raw const pinion_gauge_start, &raw const pinion_gauge_end);
    // SAFETY: the two labels enclose bytes of one read-only section, in this order, for the life of the program.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// The guest. Fields are dropped in this order: what uses memory first.
#[derive(Debug)]
pub(crate) struct Guest {
    vcpu: VcpuFd,
    _vm: VmFd,
    memory: GuestMemoryMmap<()>,
    /// What the guest's counter is ahead of the host's.
    ahead: u64,
}

/// What the guest has written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) counts: Vec<u64>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) dropped: u64,
}

/// Stops the guest, from another thread.
#[derive(Clone, Debug)]
pub(crate) struct Stop(GuestMemoryMmap<()>);

impl Stop {
    pub(crate) fn stop(&self) {
        // The address is inside the memory.
        let _ = self.0.store(1u32, GuestAddress(STOP), Ordering::Release);
    }
}

impl Guest {
    /// Makes it, with all its memory populated, on the thread that will run it.
    pub(crate) fn new() -> Result<Self, GaugeError> {
        let failed =
            |what: &'static str| move |e: kvm_ioctls::Error| GaugeError::Kvm { what, source: e.into() };
        let vm = Kvm::new().and_then(|kvm| kvm.create_vm()).map_err(failed("make a virtual machine"))?;
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), SIZE)])
            .map_err(|e| GaugeError::Memory(e.to_string()))?;
        let host = memory.get_host_address(GuestAddress(0)).map_err(|e| GaugeError::Memory(e.to_string()))?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: SIZE as u64,
            userspace_addr: host as u64,
        };
        // SAFETY: the mapping is `SIZE` bytes long and outlives the machine, which is dropped before it.
        unsafe { vm.set_user_memory_region(region) }.map_err(failed("give it memory"))?;
        let vcpu = vm.create_vcpu(0).map_err(failed("make a vCPU"))?;
        let guest = Self { vcpu, _vm: vm, memory, ahead: 0 };
        guest.clear(u32::MAX)?;
        guest.enter().map_err(failed("set the vCPU's registers"))?;
        let ahead = guest.ahead().map_err(failed("read the vCPU's time-stamp counter"))?;
        Ok(Self { ahead, ..guest })
    }

    pub(crate) fn stop(&self) -> Stop {
        Stop(self.memory.clone())
    }

    /// Protected mode, flat segments, at the code's first instruction.
    fn enter(&self) -> Result<(), kvm_ioctls::Error> {
        let mut special = self.vcpu.get_sregs()?;
        let flat =
            kvm_segment { base: 0, limit: u32::MAX, present: 1, s: 1, db: 1, g: 1, ..kvm_segment::default() };
        special.cs = kvm_segment { type_: 0xb, selector: 8, ..flat };
        let data = kvm_segment { type_: 3, selector: 16, ..flat };
        (special.ds, special.es, special.ss) = (data, data, data);
        // Protected mode; the bit beside it is always 1.
        special.cr0 = 0x11;
        self.vcpu.set_sregs(&special)?;
        let mut registers = self.vcpu.get_regs()?;
        (registers.rip, registers.rflags, registers.rsp) = (CODE, 2, 0x9000);
        self.vcpu.set_regs(&registers)
    }

    fn ahead(&self) -> Result<u64, kvm_ioctls::Error> {
        let entry = kvm_msr_entry { index: IA32_TSC, ..kvm_msr_entry::default() };
        let mut msrs = Msrs::from_entries(&[entry]).map_err(|_| kvm_ioctls::Error::new(EINVAL))?;
        let before = tsc();
        self.vcpu.get_msrs(&mut msrs)?;
        let after = tsc();
        let guest = msrs.as_slice().first().map_or(0, |m| m.data);
        Ok(guest.wrapping_sub(before.midpoint(after)))
    }

    fn clear(&self, threshold: u32) -> Result<(), GaugeError> {
        let failed = |e: vm_memory::GuestMemoryError| GaugeError::Memory(e.to_string());
        // Written whole, so that no page is missing when the guest gets there.
        let zeros = vec![0; SIZE];
        self.memory.write_slice(&zeros, GuestAddress(0)).map_err(failed)?;
        self.memory.write_slice(code(), GuestAddress(CODE)).map_err(failed)?;
        self.memory.write_obj(threshold, GuestAddress(THRESHOLD)).map_err(failed)
    }

    /// Runs it until it is stopped.
    pub(crate) fn run(&mut self, threshold: u32, begun: impl FnOnce()) -> Result<(), GaugeError> {
        let failed =
            |what: &'static str| move |e: kvm_ioctls::Error| GaugeError::Kvm { what, source: e.into() };
        self.clear(threshold)?;
        self.enter().map_err(failed("set the vCPU's registers"))?;
        begun();
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(DONE_PORT, _)) => return Ok(()),
                // A signal for this thread: the gap is recorded.
                Ok(VcpuExit::Intr) => {}
                Ok(other) => return Err(GaugeError::Exit(format!("{other:?}"))),
                Err(e) if e.errno() == EINTR || e.errno() == EAGAIN => {}
                Err(e) => return Err(failed("run")(e)),
            }
        }
    }

    /// What it has written, in the host's time.
    pub(crate) fn written(&self) -> Result<Written, GaugeError> {
        let failed = |e: vm_memory::GuestMemoryError| GaugeError::Memory(e.to_string());
        let word = |at: u64| self.memory.read_obj::<u32>(GuestAddress(at)).map_err(failed);
        let mut bytes = vec![0; LONG_GAP_CYCLES * 8];
        self.memory.read_slice(&mut bytes, GuestAddress(COUNTS)).map_err(failed)?;
        let counts = bytes.chunks_exact(8).map(number).collect();
        let logged = (word(LOGGED)? as usize).min(LONGEST_LOG);
        let mut bytes = vec![0; logged * 16];
        self.memory.read_slice(&mut bytes, GuestAddress(LOG)).map_err(failed)?;
        let gap = |entry: &[u8]| {
            let (end, cycles) = entry.split_at(8);
            Gap { end_tsc: number(end).wrapping_sub(self.ahead), cycles: number(cycles) }
        };
        let gaps = bytes.chunks_exact(16).map(gap).collect();
        Ok(Written { counts, gaps, dropped: word(DROPPED)?.into() })
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// The host's time-stamp counter.
pub(crate) fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has it, and the kernel forbids it to nobody unless asked to.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_fits_its_page_and_starts_with_a_reading() {
        assert!(code().len() < 0x1000);
        assert_eq!(code().get(..2), Some(&[0x0f, 0x31][..]), "rdtsc");
        assert_eq!(number(&[1, 2, 0, 0, 0, 0, 0, 0]), 513);
    }
}
