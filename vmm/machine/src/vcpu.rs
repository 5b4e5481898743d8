//! A vCPU's thread: waits at the gate, runs the guest, and says what ended it.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use vmm_kvm::{Exit, Vcpu};

use crate::gate::{Gate, GuestEnd, Next, Request};
use crate::io::Buses;
use crate::sandbox::Sandbox;

/// When the first vCPU first entered the guest, nanoseconds after arming began; 0 before.
#[derive(Debug)]
pub(crate) struct FirstEntry {
    pub(crate) began: Instant,
    pub(crate) after_ns: AtomicU64,
}

/// What a vCPU's thread works with.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) vcpu: Vcpu,
    pub(crate) gate: Arc<Gate>,
    pub(crate) buses: Buses,
    pub(crate) first: Arc<FirstEntry>,
}

impl Body {
    /// Runs the vCPU whenever the gate lets it, until the end.
    pub(crate) fn run(mut self, sandbox: &Sandbox) {
        let index = self.vcpu.index();
        let slot = usize::try_from(index).unwrap_or(usize::MAX);
        let _presence = self.gate.presence(slot);
        if let Err(e) = sandbox.enter_vcpu() {
            self.fail(&e);
        }
        match self.vcpu.kicker() {
            Ok(kicker) => self.gate.register(slot, kicker),
            Err(e) => self.fail(&e),
        }
        let mut seen = 0;
        loop {
            let reset = match self.gate.pass(slot, &mut seen) {
                Next::Run(entry) => self.vcpu.reset((index == 0).then_some(&entry)),
                Next::Resume => self.vcpu.was_paused(),
                Next::End => return,
            };
            if let Err(e) = reset {
                self.fail(&e);
                continue;
            }
            if index == 0 {
                let after = u64::try_from(self.first.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                let _ = self.first.after_ns.compare_exchange(0, after, Ordering::Relaxed, Ordering::Relaxed);
            }
            self.run_until_closed();
            // KVM finishes the last access at the next entry only; a parked vCPU has none pending.
            self.vcpu.complete(&self.buses);
        }
    }

    fn run_until_closed(&mut self) {
        while self.gate.is_open() {
            match self.vcpu.run(&self.buses) {
                Exit::Handled | Exit::Kicked => {}
                Exit::TripleFault => self.gate.request(Request::Reset),
                Exit::Failed(why) => {
                    let how = format!("vCPU {}: {why}", self.vcpu.index());
                    self.gate.request(Request::End(GuestEnd::Failed(how)));
                }
            }
        }
    }

    fn fail(&self, error: &dyn Error) {
        let cause = error.source().map(|c| format!(": {c}")).unwrap_or_default();
        let how = format!("vCPU {}: {error}{cause}", self.vcpu.index());
        self.gate.request(Request::End(GuestEnd::Failed(how)));
    }
}
