//! A vCPU's thread: waits at the gate, runs the guest, and says what ended it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use vmm_kvm::{Exit, Vcpu};

use crate::gate::{Gate, GuestEnd, Next, Request};
use crate::io::Buses;

/// When the first vCPU first entered the guest, nanoseconds after arming began; 0 before.
#[derive(Debug)]
pub(crate) struct FirstEntry {
    pub(crate) began: Instant,
    pub(crate) after_ns: AtomicU64,
}

/// The body of the thread.
pub(crate) fn run(mut vcpu: Vcpu, gate: &Arc<Gate>, buses: &Buses, first: &FirstEntry) {
    let index = vcpu.index();
    let slot = usize::try_from(index).unwrap_or(usize::MAX);
    match vcpu.kicker() {
        Ok(kicker) => gate.register(slot, kicker),
        Err(e) => gate.request(Request::End(GuestEnd::Failed(format!("vCPU {index}: {e}")))),
    }
    let mut seen = 0;
    while let Next::Run(entry) = gate.pass(slot, &mut seen) {
        let boots = (index == 0).then_some(&entry);
        if let Err(e) = vcpu.reset(boots) {
            let cause = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
            gate.request(Request::End(GuestEnd::Failed(format!("{e}: {cause}"))));
            continue;
        }
        if index == 0 {
            let after = u64::try_from(first.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let _ = first.after_ns.compare_exchange(0, after, Ordering::Relaxed, Ordering::Relaxed);
        }
        while gate.is_open() {
            match vcpu.run(buses) {
                Exit::Handled | Exit::Kicked => {}
                Exit::TripleFault => gate.request(Request::Reset),
                Exit::Failed(why) => {
                    gate.request(Request::End(GuestEnd::Failed(format!("vCPU {index}: {why}"))))
                }
            }
        }
        // KVM finishes the last access at the next entry only; a parked vCPU has none pending.
        vcpu.complete(buses);
    }
    gate.unregister(slot);
}
