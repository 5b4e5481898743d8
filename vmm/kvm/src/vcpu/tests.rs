//! A vCPU under this machine's KVM, with 16-bit guests of a few bytes.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};
use vmm_memory::{CellRam, GuestRam, RamConfig};

use super::*;
use crate::{ApicId, CpuidProfile, Hints, KvmVm, Topology};

/// Where guests start.
const CODE: u64 = 0x1000;
/// How long a stop may take before it counts as lost.
const LOST: Duration = Duration::from_secs(30);

/// Notes what the guest writes to ports, by width.
#[derive(Debug, Default)]
struct Ports(Mutex<Vec<(u16, Vec<u8>)>>);

impl Ports {
    fn writes(&self) -> Vec<(u16, Vec<u8>)> {
        self.0.lock().unwrap().clone()
    }
}

impl IoHandler for Ports {
    fn port_read(&self, port: Port, data: &mut [u8]) {
        self.0.lock().unwrap().push((port.0, vec![0; data.len()]));
        data.fill(0x5a);
    }
    fn port_write(&self, port: Port, data: &[u8]) {
        self.0.lock().unwrap().push((port.0, data.to_vec()));
    }
    fn mmio_read(&self, _: Gpa, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, _: Gpa, _: &[u8]) {}
    fn end_of_interrupt(&self, _: u8) {}
}

/// A VM with one vCPU in real mode at [`CODE`], or `None` with the reason printed. A guest that only
/// writes to a port shows first whether this machine's KVM can run any.
fn guest(code: &[u8]) -> Option<(KvmVm, Vcpu)> {
    let (_vm, mut probe) = build(&[0xe6, 0x10])?;
    match probe.run(&Ports::default()) {
        Exit::Handled => build(code),
        other => {
            println!("skipped: this machine's KVM cannot run guests: {other:?}");
            None
        }
    }
}

fn build(code: &[u8]) -> Option<(KvmVm, Vcpu)> {
    let mut vm = match KvmVm::new(1, ApicId(0), Hints::Dedicated) {
        Ok(vm) => vm,
        Err(e) => {
            println!("skipped: this machine runs no guests: {e}");
            return None;
        }
    };
    let cell = CellRam { cell: 0, bytes: 1 << 20, page_size: 4096, host_node: None };
    let ram = Arc::new(GuestRam::build(&RamConfig { cells: vec![cell] }).unwrap());
    ram.memory().write_slice(code, GuestAddress(CODE)).unwrap();
    vm.set_memory(ram).unwrap();
    let topology = Topology { sockets: 1, cores: 1, threads: 1 };
    let profile = CpuidProfile { topology, llc_shift: 0, hints: Hints::Dedicated };
    let mut vcpu = vm.create_vcpu(0, ApicId(0), &profile).unwrap();
    vcpu.reset(None).unwrap();
    let mut sregs = vcpu.fd.get_sregs().unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.fd.set_sregs(&sregs).unwrap();
    let regs = kvm_bindings::kvm_regs { rip: CODE, rflags: 2, ..kvm_bindings::kvm_regs::default() };
    vcpu.fd.set_regs(&regs).unwrap();
    Some((vm, vcpu))
}

#[test]
fn ten_thousand_stops_and_none_is_lost() {
    const STOPS: u64 = 10_000;
    // jmp $
    let Some((_vm, mut vcpu)) = guest(&[0xeb, 0xfe]) else { return };
    let (asked, answered, end) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (say, hear) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            say.send(vcpu.kicker().unwrap()).unwrap();
            while !end.load(Ordering::SeqCst) {
                assert_eq!(vcpu.run(&Ports::default()), Exit::Kicked);
                answered.store(asked.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            drop(say);
        });
        let kicker = hear.recv().unwrap();
        for stop in 1..=STOPS {
            asked.store(stop, Ordering::SeqCst);
            kicker.kick();
            let asked_at = Instant::now();
            while answered.load(Ordering::SeqCst) < stop {
                assert!(asked_at.elapsed() < LOST, "stop {stop} was lost");
                thread::yield_now();
            }
        }
        end.store(true, Ordering::SeqCst);
        kicker.kick();
    });
}

#[test]
fn a_stop_neither_repeats_nor_drops_an_access() {
    // again: out 0x10, al; inc al; jmp again
    let Some((_vm, mut vcpu)) = guest(&[0xe6, 0x10, 0xfe, 0xc0, 0xeb, 0xfa]) else { return };
    let ports = Ports::default();
    for _ in 0..600 {
        assert_eq!(vcpu.run(&ports), Exit::Handled);
        vcpu.complete(&ports);
    }
    let expected: Vec<_> = (0u8..=255).cycle().take(600).map(|al| (0x10, vec![al])).collect();
    assert_eq!(ports.writes(), expected);
}

#[test]
fn a_string_instruction_is_one_access_for_each_element() {
    // mov cx, 3; mov si, 0x1000; mov dx, 0x20; cld; rep outsw; jmp $
    let code = [0xb9, 3, 0, 0xbe, 0, 0x10, 0xba, 0x20, 0, 0xfc, 0xf3, 0x6f, 0xeb, 0xfe];
    let Some((_vm, mut vcpu)) = guest(&code) else { return };
    let ports = Ports::default();
    while ports.writes().len() < 3 {
        assert_eq!(vcpu.run(&ports), Exit::Handled);
    }
    vcpu.complete(&ports);
    let elements = [vec![0xb9, 3], vec![0, 0xbe], vec![0, 0x10]];
    assert_eq!(ports.writes(), elements.map(|e| (0x20, e)));
}

#[test]
fn reset_brings_back_what_a_guest_changed() {
    // again: out 0x10, al; jmp again
    let Some((_vm, mut vcpu)) = guest(&[0xe6, 0x10, 0xeb, 0xfc]) else { return };
    assert_eq!(vcpu.run(&Ports::default()), Exit::Handled);
    vcpu.complete(&Ports::default());
    vcpu.reset(None).unwrap();
    let (regs, sregs) = (vcpu.fd.get_regs().unwrap(), vcpu.fd.get_sregs().unwrap());
    assert_eq!((regs.rip, sregs.cs.base, sregs.cs.selector), (0xfff0, 0xffff_0000, 0xf000));
}

#[test]
fn ids_beyond_xapic_start_in_x2apic_mode() {
    let mut vm = match KvmVm::new(2, ApicId(300), Hints::None) {
        Ok(vm) => vm,
        Err(e) => return println!("skipped: this machine runs no such guests: {e}"),
    };
    let cell = CellRam { cell: 0, bytes: 1 << 20, page_size: 4096, host_node: None };
    vm.set_memory(Arc::new(GuestRam::build(&RamConfig { cells: vec![cell] }).unwrap())).unwrap();
    let topology = Topology { sockets: 512, cores: 1, threads: 1 };
    let profile = CpuidProfile { topology, llc_shift: 0, hints: Hints::None };
    for (index, id) in [(0, ApicId(0)), (1, ApicId(300))] {
        let mut vcpu = vm.create_vcpu(index, id, &profile).unwrap();
        vcpu.reset(None).unwrap();
        assert_ne!(vcpu.fd.get_sregs().unwrap().apic_base & 1 << 10, 0);
    }
}
