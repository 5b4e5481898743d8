//! The gate that vCPU threads wait at: armed, running, paused, parked for a reboot, or ended.
//!
//! Any thread may pause the guest, or ask for the end or a reset; the first to ask wins. vCPU threads park at the gate; the
//! supervisor, on the emulator's thread, waits for all of them and then decides what is next.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd as EndFd;
use vmm_boot::BootEntry;
use vmm_devices::PowerSignals;
use vmm_kvm::Kicker;
use vmm_sys_util::eventfd::EventFd;

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestEnd {
    /// It switched itself off.
    PoweredOff,
    /// It was stopped by force.
    Stopped,
    /// It crashed: what it did.
    Crashed(String),
    /// The host could not go on with it: why.
    Failed(String),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Reset,
    End(GuestEnd),
}

/// What a vCPU thread does next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    /// Reset the vCPU and run it; `Some` for the one that boots.
    Run(BootEntry),
    /// Go on where it was: it was paused.
    Resume,
    /// End the thread.
    End,
}

#[derive(Clone, Copy, Debug)]
enum Goal {
    Park,
    Run { epoch: u64, entry: BootEntry },
    End,
}

#[derive(Debug)]
struct Inner {
    goal: Goal,
    epoch: u64,
    paused: bool,
    request: Option<Request>,
    parked: usize,
    /// vCPU threads that are gone before the end.
    absent: usize,
    kickers: Vec<Option<Kicker>>,
    end: Option<GuestEnd>,
    opened: Option<Instant>,
}

/// The gate of one machine.
#[derive(Debug)]
pub(crate) struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Whether vCPUs may enter the guest; read after each exit, without the lock.
    open: AtomicBool,
    vcpus: usize,
    /// Signalled when something was asked for.
    attention: EventFd,
    /// Readable from the end on.
    ended: EndFd,
}

impl Gate {
    /// A closed gate for that many vCPUs.
    pub(crate) fn new(vcpus: usize, attention: EventFd, ended: EndFd) -> Self {
        let inner = Inner {
            goal: Goal::Park,
            epoch: 0,
            paused: false,
            request: None,
            parked: 0,
            absent: 0,
            kickers: (0..vcpus).map(|_| None).collect(),
            end: None,
            opened: None,
        };
        Self {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            open: AtomicBool::new(false),
            vcpus,
            attention,
            ended,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, on a vCPU's thread, until the gate opens: for an epoch this vCPU has not run in, or again after a pause.
    /// Its kicker is kept from here on.
    pub(crate) fn pass(&self, vcpu: usize, seen: &mut u64) -> Next {
        let mut inner = self.lock();
        inner.parked += 1;
        self.changed.notify_all();
        loop {
            match inner.goal {
                Goal::Run { epoch, entry } if !inner.paused => {
                    inner.parked -= 1;
                    let next = if epoch == *seen { Next::Resume } else { Next::Run(entry) };
                    *seen = epoch;
                    return next;
                }
                Goal::End => {
                    if let Some(kicker) = inner.kickers.get_mut(vcpu) {
                        *kicker = None;
                    }
                    return Next::End;
                }
                _ => inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Wakes who waits: each looks, and waits on.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Keeps what gets a vCPU out of the guest.
    pub(crate) fn register(&self, vcpu: usize, kicker: Kicker) {
        if let Some(slot) = self.lock().kickers.get_mut(vcpu) {
            *slot = Some(kicker);
        }
    }

    /// The calling thread is that of a vCPU; the gate knows of its end by what this returns.
    pub(crate) fn presence(self: &Arc<Self>, vcpu: usize) -> Presence {
        Presence { gate: Arc::clone(self), vcpu }
    }

    /// Whether vCPUs may enter the guest.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Lets all vCPUs start from `entry`, unless the end has come or was asked for meanwhile.
    pub(crate) fn open(&self, entry: BootEntry) {
        let mut inner = self.lock();
        if Self::ends(&inner) {
            return;
        }
        inner.epoch += 1;
        inner.opened = Some(Instant::now());
        inner.request = None;
        inner.goal = Goal::Run { epoch: inner.epoch, entry };
        self.open.store(!inner.paused, Ordering::Release);
        self.changed.notify_all();
    }

    /// Gets all vCPUs out of the guest and keeps them out, through a reset too, until [`Gate::resume`]. Returns when
    /// they are out; `false` where the guest has ended, or its end was asked for.
    pub(crate) fn pause(&self) -> bool {
        let mut inner = self.lock();
        inner.paused = true;
        self.open.store(false, Ordering::Release);
        inner.kickers.iter().flatten().for_each(Kicker::kick);
        while matches!(inner.goal, Goal::Run { .. }) && inner.parked + inner.absent < self.vcpus {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        !Self::ends(&inner)
    }

    /// Lets them go on; `false` as for [`Gate::pause`].
    pub(crate) fn resume(&self) -> bool {
        let mut inner = self.lock();
        inner.paused = false;
        let runs = matches!(inner.goal, Goal::Run { .. });
        self.open.store(runs, Ordering::Release);
        self.changed.notify_all();
        !Self::ends(&inner)
    }

    /// Whether somebody has paused it.
    pub(crate) fn is_paused(&self) -> bool {
        self.lock().paused
    }

    fn ends(inner: &Inner) -> bool {
        matches!(inner.goal, Goal::End) || matches!(inner.request, Some(Request::End(_)))
    }

    /// Asks for a reset or the end. The first to ask wins, but the end wins over a reset.
    pub(crate) fn request(&self, request: Request) {
        let mut inner = self.lock();
        let late = match &inner.request {
            Some(Request::End(_)) => true,
            Some(Request::Reset) => request == Request::Reset,
            None => matches!(inner.goal, Goal::End),
        };
        if late {
            return;
        }
        inner.request = Some(request);
        self.close(&mut inner);
        // Fails only when the counter is full, and then it is readable anyway.
        let _ = self.attention.write(1);
    }

    fn close(&self, inner: &mut Inner) {
        self.open.store(false, Ordering::Release);
        if matches!(inner.goal, Goal::Run { .. }) {
            inner.goal = Goal::Park;
        }
        inner.kickers.iter().flatten().for_each(Kicker::kick);
    }

    /// What was asked for, once all vCPUs are parked; `None` if nothing was.
    pub(crate) fn wait_parked(&self) -> Option<Request> {
        let mut inner = self.lock();
        inner.request.as_ref()?;
        while inner.parked + inner.absent < self.vcpus {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.request.take()
    }

    /// Ends all vCPU threads, and says how the guest ended.
    pub(crate) fn end(&self, how: GuestEnd) {
        let mut inner = self.lock();
        self.close(&mut inner);
        inner.goal = Goal::End;
        inner.end.get_or_insert(how);
        self.changed.notify_all();
        let _ = self.ended.write(1);
    }

    /// How long ago the gate was last opened.
    pub(crate) fn open_for(&self) -> Duration {
        self.lock().opened.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// How the guest ended; `None` while it has not.
    pub(crate) fn how_ended(&self) -> Option<GuestEnd> {
        self.lock().end.clone()
    }

    /// Readable from the end on.
    pub(crate) fn ended(&self) -> &EndFd {
        &self.ended
    }
}

/// Held by a vCPU's thread for as long as it lives. A thread that ends by a panic ends the guest.
#[derive(Debug)]
pub(crate) struct Presence {
    gate: Arc<Gate>,
    vcpu: usize,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut inner = self.gate.lock();
        inner.absent += 1;
        // A kicker must go before its thread does.
        if let Some(kicker) = inner.kickers.get_mut(self.vcpu) {
            *kicker = None;
        }
        self.gate.changed.notify_all();
        drop(inner);
        if std::thread::panicking() {
            let how = format!("the thread of vCPU {} panicked", self.vcpu);
            self.gate.request(Request::End(GuestEnd::Failed(how)));
        }
    }
}

impl PowerSignals for Gate {
    fn power_off(&self) {
        self.request(Request::End(GuestEnd::PoweredOff));
    }

    fn reset(&self) {
        self.request(Request::Reset);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use vmm_boot::Protocol;
    use vmm_bus::Gpa;

    use super::*;

    fn gate(vcpus: usize) -> Arc<Gate> {
        Arc::new(Gate::new(vcpus, EventFd::new(0).unwrap(), EndFd::new().unwrap()))
    }

    fn entry() -> BootEntry {
        let zero = Gpa(0);
        BootEntry {
            protocol: Protocol::Pvh,
            rip: zero,
            rsp: zero,
            rsi: zero,
            rbx: zero,
            cr3: zero,
            gdt: zero,
        }
    }

    /// Runs of all vCPU threads together.
    type Runs = Arc<AtomicUsize>;

    /// vCPU threads that "run" until the gate closes; they say how often they ran.
    fn vcpus(gate: &Arc<Gate>, count: usize, all: &Runs) -> Vec<thread::JoinHandle<u32>> {
        let body = |gate: Arc<Gate>, vcpu, all: Runs| {
            let (mut seen, mut runs) = (0, 0);
            loop {
                match gate.pass(vcpu, &mut seen) {
                    Next::Run(_) => {
                        runs += 1;
                        all.fetch_add(1, Ordering::SeqCst);
                    }
                    Next::Resume => drop(all.fetch_add(1000, Ordering::SeqCst)),
                    Next::End => return runs,
                }
                while gate.is_open() {
                    thread::yield_now();
                }
            }
        };
        (0..count)
            .map(|vcpu| (Arc::clone(gate), Arc::clone(all), vcpu))
            .map(|(gate, all, vcpu)| thread::spawn(move || body(gate, vcpu, all)))
            .collect()
    }

    fn runs(threads: Vec<thread::JoinHandle<u32>>) -> Vec<u32> {
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    }

    #[test]
    fn nobody_runs_before_the_gate_opens() {
        let gate = gate(3);
        let threads = vcpus(&gate, 3, &Runs::default());
        while gate.lock().parked < 3 {
            thread::yield_now();
        }
        gate.wake();
        gate.end(GuestEnd::Stopped);
        assert_eq!(runs(threads), [0, 0, 0]);
        assert_eq!(gate.how_ended(), Some(GuestEnd::Stopped));
    }

    #[test]
    fn a_reset_parks_everybody_and_each_runs_again() {
        let (gate, all) = (gate(2), Runs::default());
        let threads = vcpus(&gate, 2, &all);
        for round in 1..=50 {
            gate.open(entry());
            while all.load(Ordering::SeqCst) < 2 * round {
                thread::yield_now();
            }
            gate.reset();
            assert_eq!(gate.wait_parked(), Some(Request::Reset));
        }
        gate.end(GuestEnd::PoweredOff);
        assert_eq!(runs(threads), [50, 50]);
    }

    #[test]
    fn the_end_wins_over_a_reset_and_the_first_end_over_later_ones() {
        let gate = gate(0);
        gate.open(entry());
        gate.reset();
        gate.power_off();
        gate.request(Request::End(GuestEnd::Stopped));
        assert_eq!(gate.wait_parked(), Some(Request::End(GuestEnd::PoweredOff)));
        gate.end(GuestEnd::PoweredOff);
        gate.end(GuestEnd::Stopped);
        assert_eq!(gate.how_ended(), Some(GuestEnd::PoweredOff));
    }

    #[test]
    fn who_is_paused_goes_on_where_it_was() {
        let (gate, all) = (gate(2), Runs::default());
        let threads = vcpus(&gate, 2, &all);
        gate.open(entry());
        while all.load(Ordering::SeqCst) < 2 {
            thread::yield_now();
        }
        for round in 1..=50 {
            assert!(gate.pause() && gate.is_paused());
            assert_eq!(gate.lock().parked, 2);
            assert!(gate.resume() && !gate.is_paused());
            while all.load(Ordering::SeqCst) < 2 + 2000 * round {
                thread::yield_now();
            }
        }
        gate.end(GuestEnd::Stopped);
        assert!(!gate.pause() && !gate.resume());
        assert_eq!(runs(threads), [1, 1], "they started once");
    }

    #[test]
    fn a_paused_guest_stays_paused_through_a_reset_and_can_be_ended() {
        let (gate, all) = (gate(1), Runs::default());
        let threads = vcpus(&gate, 1, &all);
        gate.open(entry());
        assert!(gate.pause());
        gate.reset();
        assert_eq!(gate.wait_parked(), Some(Request::Reset));
        gate.open(entry());
        assert!(!gate.is_open(), "it is paused still");
        gate.request(Request::End(GuestEnd::Stopped));
        assert_eq!(gate.wait_parked(), Some(Request::End(GuestEnd::Stopped)));
        gate.end(GuestEnd::Stopped);
        runs(threads);
    }

    #[test]
    fn nothing_is_reported_that_nobody_asked_for() {
        assert_eq!(gate(1).wait_parked(), None);
    }

    #[test]
    fn an_end_that_was_asked_for_during_a_reboot_is_not_forgotten() {
        let gate = gate(1);
        let threads = vcpus(&gate, 1, &Runs::default());
        gate.open(entry());
        gate.reset();
        assert_eq!(gate.wait_parked(), Some(Request::Reset));
        gate.request(Request::End(GuestEnd::Stopped));
        gate.open(entry());
        assert!(!gate.is_open());
        assert_eq!(gate.wait_parked(), Some(Request::End(GuestEnd::Stopped)));
        gate.end(GuestEnd::Stopped);
        gate.open(entry());
        assert!(!gate.is_open());
        runs(threads);
    }

    #[test]
    fn a_thread_that_panics_ends_the_guest() {
        let gate = gate(2);
        let others = vcpus(&gate, 1, &Runs::default());
        let broken = Arc::clone(&gate);
        let body = move || {
            let _presence = broken.presence(1);
            broken.pass(1, &mut 0);
            panic!("as a test");
        };
        let thread = thread::spawn(body);
        gate.open(entry());
        assert!(thread.join().is_err());
        let how = GuestEnd::Failed("the thread of vCPU 1 panicked".to_owned());
        assert_eq!(gate.wait_parked(), Some(Request::End(how.clone())));
        gate.end(how);
        runs(others);
    }
}
