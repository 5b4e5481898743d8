//! One guest from its spec to its end: arm, verify, run, audit.
//!
//! Runs on the launcher's main thread, which lives on housekeeping CPUs like every thread that is
//! neither a vCPU nor an I/O thread.
//!
//! SIGTERM, SIGINT and SIGHUP press the guest's power button, and force its end when they come again;
//! SIGUSR1 has everything checked at once.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use pinion_endpoint::{Endpoint, EndpointError, Page};

use crate::backend::{ArmedGuest, Backend, BackendError, GuestEnd, RunningGuest, ThreadGroups, Wiring};
use crate::certificate::{self, Auditor, Certificate, Depth, Plan, Repair, Subjects, Verdict};
use crate::console::{Console, Typed};
use crate::control::{Control, ControlError, Parts};
use crate::end::End;
use crate::event::{Event, Events};
use crate::guest::numbers;
use crate::metrics::GuestPhase;
use crate::monitor::Monitor;
use crate::sandbox;
use crate::spec::LaunchSpec;
use crate::trouble::Trouble;
use pinion_endpoint::chain;
use vmm_machine::ConsoleConfig;

/// Every so many checks, pages are counted again: that costs more than looking at threads.
const MEMORY_EVERY: u64 = 12;
/// The first check of a guest that runs: its first instructions made what threads the kernel needs.
const SETTLED_AFTER: Duration = Duration::from_millis(100);
/// When new interrupts of devices are looked at: whoever keeps the host has brought them to their CPUs by then.
const ROUTED_AFTER: Duration = Duration::from_millis(500);
/// How long news of devices wait after some were heard: a guest could make them as fast as it likes.
const DEAF_FOR: Duration = Duration::from_millis(50);
/// How long the host may take to make the guest's CPUs its own.
const HOST_WITHIN: Duration = Duration::from_secs(30);
/// How often a guest is armed again whose threads were moved before they had CPUs of their own.
const ARMED_AGAIN: usize = 8;
/// Until the power button is pressed again: a guest that still boots has nobody yet who hears it, and one that shuts down
/// has heard it and does not mind.
const PRESSED_AGAIN: Duration = Duration::from_secs(5);
const FORGOTTEN: &str =
    "its threads were moved while it started, as when another guest starts or ends: armed once more";
/// Asks for a check of everything at once.
const CHECK_NOW: Signal = Signal::SIGUSR1;

/// Why a session could not begin, as opposed to how its guest ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Something of this process.
    #[error("Cannot {action}")]
    Process {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// From the operating system.
        source: io::Error,
    },
    /// The main thread cannot be moved.
    #[error("Cannot go to the emulator's CPUs")]
    Place(#[from] vmm_host::ThreadError),
    /// Metrics cannot be served.
    #[error("Cannot serve metrics")]
    Metrics(#[from] EndpointError),
    /// The guest cannot be set up.
    #[error("Cannot set up the guest")]
    Guest(#[source] BackendError),
    /// The guest's socket cannot be made.
    #[error("Cannot make the guest's socket")]
    Control(#[from] ControlError),
    /// Privileges cannot be given up.
    #[error("Cannot give up privileges that the guest does not need")]
    Privileges(#[from] caps::errors::CapsError),
}

/// One guest.
#[derive(Debug)]
pub struct Session {
    spec: LaunchSpec,
    events: Events,
    monitor: Monitor,
    listener: Option<UnixListener>,
    taps: BTreeMap<String, OwnedFd>,
    groups: Option<Arc<dyn ThreadGroups>>,
}

impl Session {
    /// A session that tells `events` what happens.
    #[must_use]
    pub fn new(spec: LaunchSpec, events: Events) -> Self {
        let monitor = Monitor::new(&spec);
        Self { spec, events, monitor, listener: None, taps: BTreeMap::new(), groups: None }
    }

    /// One whose guest's socket somebody else has made.
    #[must_use]
    pub fn with_listener(self, listener: Option<UnixListener>) -> Self {
        Self { listener, ..self }
    }

    /// One whose interfaces are on taps that somebody else has opened.
    #[must_use]
    pub fn with_taps(self, taps: BTreeMap<String, OwnedFd>) -> Self {
        Self { taps, ..self }
    }

    /// One whose threads' control groups somebody else keeps.
    #[must_use]
    pub fn with_groups(self, groups: Arc<dyn ThreadGroups>) -> Self {
        Self { groups: Some(groups), ..self }
    }

    /// The whole life of the guest.
    ///
    /// The order is the promise:
    /// 1. This thread goes to the emulator's CPUs: every thread it starts is born there or on its own.
    /// 2. Signals are blocked and read from a descriptor: none can come between two steps.
    /// 3. Everything the guest needs is opened. What is missing ends the session here.
    ///    Then privileges that only opening needs go, before a thread of the guest could inherit them.
    /// 4. *Arm*: threads on their CPUs, pages on their nodes, the kernel loaded; nothing runs.
    /// 5. *Verify*: all of it is read back from the kernel. What drifted ends the session here.
    /// 6. *Run*: only now does a vCPU execute its first instruction.
    /// 7. *Audit* until the end; then threads, pages and descriptors go, in this order.
    pub fn run(mut self, backend: &dyn Backend) -> End {
        let end = match self.attempt(backend) {
            Ok(end) => end,
            Err(e) => End::NotArmed(chain(&e)),
        };
        let phase = if end == End::PoweredOff { GuestPhase::Succeeded } else { GuestPhase::Failed };
        self.monitor.reached(phase);
        self.events.tell(&Event::Ended { end: end.clone() });
        end
    }

    fn attempt(&mut self, backend: &dyn Backend) -> Result<End, SessionError> {
        vmm_host::set_affinity(0, &numbers(&self.spec.placement.emulator.cpus))?;
        let signals = signals()?;
        let monitor = self.monitor.clone();
        let endpoint = self.spec.metrics.map(|address| serve_metrics(address, monitor)).transpose()?;
        let log = self.spec.instance.spec.domain.devices.log_serial_console != Some(false);
        let (console, mut wiring) = Console::open(self.spec.console, log).map_err(console_failed)?;
        let control = self.open_control(&console, &mut wiring)?;
        let (taps, groups) = (std::mem::take(&mut self.taps), self.groups.take());
        let wiring = Wiring { console: wiring, taps, groups };
        let guest = backend.open(&self.spec, wiring).map_err(SessionError::Guest)?;
        sandbox::give_up_privileges(&self.spec, backend.privileges())?;
        let (monitor, events) = (self.monitor.clone(), &mut self.events);
        let mut progress = |phase: &'static str, took: Duration| {
            monitor.started(phase, took);
            let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            events.tell(&Event::Phase { phase: phase.to_owned(), took_ns });
        };
        let armed = match guest.arm(&mut progress) {
            Ok(armed) => armed,
            Err(e) => return Ok(End::NotArmed(chain(e.as_ref()))),
        };
        self.events.tell(&Event::Armed);
        self.wait_for_host(&signals);
        let end = self.verify_and_run(armed, &signals, console);
        self.monitor.runs(None);
        drop((endpoint, control));
        Ok(end)
    }

    /// The guest's socket, where one is asked for: the console's output goes through it then.
    fn open_control(
        &mut self,
        console: &Console,
        wiring: &mut ConsoleConfig,
    ) -> Result<Option<Control>, SessionError> {
        let given = self.listener.take();
        if given.is_none() && self.spec.sockets.is_none() {
            return Ok(None);
        }
        let Some(keys) = console.keys().map_err(console_failed)? else { return Ok(None) };
        let spec = serde_json::to_value(&self.spec).unwrap_or_default();
        let parts = Parts { monitor: self.monitor.clone(), spec, keys, print: wiring.output.take() };
        let (control, output) = match (given, &self.spec.sockets) {
            (Some(listener), _) => Control::on(listener, parts)?,
            (None, Some(folder)) => Control::open(folder, parts)?,
            (None, None) => return Ok(None),
        };
        wiring.output = Some(output);
        Ok(Some(control))
    }

    /// Whoever keeps the host makes the guest's CPUs its own now that its threads are there, and writes a byte then.
    /// A signal ends the wait too, and so does time: the certificate then says what is missing. Whether the host was heard.
    fn wait_for_host(&self, signals: &SignalFd) -> bool {
        let Some(fd) = self.spec.wait_fd else { return false };
        let options =
            OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).clone();
        let Ok(go) = options.open(format!("/proc/self/fd/{fd}")) else { return false };
        let mut fds =
            [PollFd::new(go.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::try_from(HOST_WITHIN).unwrap_or(PollTimeout::MAX));
        // Heard: the next wait is for the next byte.
        nix::unistd::read(&go, &mut [0]).is_ok_and(|bytes| bytes > 0)
    }

    fn verify_and_run(&mut self, armed: Box<dyn ArmedGuest>, signals: &SignalFd, console: Console) -> End {
        let subjects = Subjects { pid: armed.process(), threads: armed.threads(), cells: armed.memory() };
        self.monitor.watch(subjects.clone());
        let began = Instant::now();
        let mut auditor = Auditor::new(self.plan().with_helpers(armed.helpers()), subjects);
        let repair = armed.repair();
        let certificate = self.read_back(&mut auditor, armed.as_ref(), signals);
        self.publish(&certificate, &auditor);
        self.monitor.started("verify", began.elapsed());
        let (items, mismatches) = (certificate.items.len(), certificate.mismatches.clone());
        self.events.tell(&Event::Verified { verdict: certificate.verdict, items, mismatches });
        if certificate.verdict == Verdict::Drifted {
            return End::NotVerified(certificate.mismatches);
        }
        if asked_to_end(signals) {
            return End::Forced;
        }
        let guest: Arc<dyn RunningGuest> = match armed.run() {
            Ok(guest) => Arc::from(guest),
            Err(e) => return End::HostFailed(chain(e.as_ref())),
        };
        self.monitor.runs(Some(Arc::clone(&guest)));
        self.monitor.reached(GuestPhase::Running);
        self.events.tell(&Event::Running);
        let mut watch = Watch {
            guest,
            auditor,
            repair,
            last: certificate,
            console,
            trouble: Trouble::default(),
            unrepaired: BTreeMap::new(),
            vectors: Vec::new(),
            deaf_until: None,
            deadline: None,
            press: None,
        };
        self.watch(&mut watch, signals)
    }

    fn plan(&self) -> Plan {
        Plan { may_narrow: self.spec.shared_pool, ..Plan::of(&self.spec.placement) }
    }

    /// Reads everything back. Kernels before 6.2 forget what threads have set for themselves whenever a partition comes or
    /// goes: another guest that starts or ends at that time takes this one's threads off their CPUs, before it has a
    /// partition of its own. Then, and nothing runs yet, it is armed once more.
    fn read_back(
        &mut self,
        auditor: &mut Auditor,
        armed: &dyn ArmedGuest,
        signals: &SignalFd,
    ) -> Certificate {
        let repair = armed.repair();
        armed.wake();
        let mut certificate = auditor.check(Depth::Everything).certificate;
        for _ in 0..ARMED_AGAIN {
            if self.spec.wait_fd.is_none() || certificate.verdict != Verdict::Drifted {
                break;
            }
            let put_back = auditor.repair(&certificate, repair.as_ref());
            if put_back.is_empty() || put_back.iter().any(|r| r.result.is_err()) {
                break;
            }
            self.events.tell(&Event::Warning { what: FORGOTTEN.to_owned() });
            self.events.tell(&Event::Armed);
            let heard = self.wait_for_host(signals);
            armed.wake();
            certificate = auditor.check(Depth::Everything).certificate;
            if !heard {
                break;
            }
        }
        certificate
    }

    /// Waits for the end, and audits meanwhile.
    fn watch(&mut self, watch: &mut Watch, signals: &SignalFd) -> End {
        let interval = Duration::from_secs(self.spec.audit.interval_seconds.max(1));
        let (mut next, mut checks) = (Instant::now() + SETTLED_AFTER.min(interval), 0u64);
        loop {
            if let Some(end) = watch.guest.end() {
                self.tell_trouble(watch);
                return how(end);
            }
            let wake = [watch.deadline, watch.press].into_iter().flatten().fold(next, Instant::min);
            let deaf = watch.deaf_until.filter(|until| Instant::now() < *until);
            let ready = wait(watch, signals, deaf.map_or(wake, |until| until.min(wake)), deaf.is_none());
            if ready.signal {
                while let Ok(Some(signal)) = signals.read_signal() {
                    if signal.ssi_signo == CHECK_NOW as u32 {
                        self.audit(watch, Depth::Everything);
                    } else {
                        self.ask_to_end(watch);
                    }
                }
            }
            if ready.devices {
                self.hear_devices(watch);
                next = next.min(Instant::now() + ROUTED_AFTER);
            }
            if ready.typed && watch.console.typed() == Typed::Escape {
                self.ask_to_end(watch);
            }
            let now = Instant::now();
            if watch.deadline.is_some_and(|d| now >= d) {
                watch.force();
            } else if watch.press.is_some_and(|p| now >= p) {
                watch.press_button();
            }
            if now >= next {
                checks += 1;
                let depth =
                    if checks.is_multiple_of(MEMORY_EVERY) { Depth::Everything } else { Depth::Threads };
                self.audit(watch, depth);
                next = now + interval;
            }
        }
    }

    /// The first time presses the power button, again and again until the guest has ended; the second ends it by force.
    fn ask_to_end(&mut self, watch: &mut Watch) {
        let grace = self.spec.instance.spec.grace_period();
        if watch.deadline.is_some() || grace.is_zero() {
            watch.force();
            return;
        }
        watch.press_button();
        watch.deadline = Some(Instant::now() + grace);
        self.events.tell(&Event::PowerButton { grace_seconds: grace.as_secs() });
    }

    /// Interrupts that a driver in the guest has set up anew are brought to their CPUs by whoever keeps the host.
    fn hear_devices(&mut self, watch: &mut Watch) {
        watch.guest.take_device_news();
        watch.deaf_until = Some(Instant::now() + DEAF_FOR);
        let generations: Vec<u64> = watch.guest.stats().devices.iter().map(|d| d.generation).collect();
        if watch.vectors != generations {
            watch.vectors = generations;
            self.events.tell(&Event::Vectors);
        }
        self.tell_trouble(watch);
    }

    /// Looks, tells what drifted, and puts back what drifted before: so that a drift is always seen
    /// once as it was.
    fn audit(&mut self, watch: &mut Watch, depth: Depth) {
        for (name, result) in watch.auditor.settle(&watch.last, watch.repair.as_ref()) {
            self.tell_repair(watch, format!("{name}, a thread that is new"), result);
        }
        if self.spec.audit.repair && watch.last.verdict == Verdict::Drifted {
            for repaired in watch.auditor.repair(&watch.last, watch.repair.as_ref()) {
                let what = format!("{} {:?}", repaired.role.as_str(), repaired.check);
                self.tell_repair(watch, what, repaired.result);
            }
        }
        let checked = watch.auditor.check(depth);
        for item in &checked.new_drift {
            let what = format!(
                "{} {:?}: planned {}, found {}",
                item.subject, item.check, item.planned, item.observed
            );
            self.events.tell(&Event::Drifted { what });
        }
        self.publish(&checked.certificate, &watch.auditor);
        let (verdict, mismatches) = (checked.certificate.verdict, &checked.certificate.mismatches);
        if (verdict, mismatches) != (watch.last.verdict, &watch.last.mismatches) {
            let mismatches = mismatches.clone();
            self.events.tell(&Event::Judged { verdict, mismatches });
        }
        watch.last = checked.certificate;
        self.tell_trouble(watch);
    }

    /// What fails for the same reason as the last time is not told again.
    fn tell_repair(&mut self, watch: &mut Watch, what: String, result: io::Result<()>) {
        let failure = result.err().map(|e| e.to_string());
        let before = match &failure {
            Some(why) => watch.unrepaired.insert(what.clone(), why.clone()),
            None => watch.unrepaired.remove(&what).and(None),
        };
        if failure.is_none() || failure != before {
            self.events.tell(&Event::Repaired { what, failure });
        }
    }

    fn tell_trouble(&mut self, watch: &mut Watch) {
        for what in watch.trouble.news(&watch.guest.stats(), watch.guest.pause().as_ref()) {
            self.events.tell(&Event::Warning { what });
        }
    }

    fn publish(&mut self, certificate: &Certificate, auditor: &Auditor) {
        self.monitor.certified(certificate, auditor);
        let Some(path) = &self.spec.certificate else { return };
        if let Err(e) = certificate::write(path, certificate) {
            self.events.tell(&Event::Warning { what: chain(&e) });
        }
    }
}

/// A guest that runs, and what watches it.
struct Watch {
    guest: Arc<dyn RunningGuest>,
    auditor: Auditor,
    repair: Box<dyn Repair>,
    last: Certificate,
    console: Console,
    trouble: Trouble,
    /// What could not be put back, and why.
    unrepaired: BTreeMap<String, String>,
    /// Of each device, which set of vectors was told last.
    vectors: Vec<u64>,
    /// Until when news of devices wait.
    deaf_until: Option<Instant>,
    /// When force follows the power button.
    deadline: Option<Instant>,
    /// When the power button is pressed again.
    press: Option<Instant>,
}

impl Watch {
    fn press_button(&mut self) {
        self.guest.power_button();
        self.press = Some(Instant::now() + PRESSED_AGAIN);
    }

    fn force(&mut self) {
        self.press = None;
        self.guest.stop();
    }
}

fn console_failed(source: io::Error) -> SessionError {
    SessionError::Process { action: "open the console", source }
}

fn serve_metrics(address: SocketAddr, monitor: Monitor) -> Result<Endpoint, EndpointError> {
    // Where the kernel refuses, it serves with the privileges that it was born with.
    let born = || drop(sandbox::give_up_all_privileges());
    Endpoint::open(address, born, move |path| match path {
        "/metrics" => Some(match monitor.render() {
            Some(text) => Page::new(Page::METRICS, text),
            None => Page { healthy: false, ..Page::new(Page::TEXT, "The metrics cannot be read\n".into()) },
        }),
        "/healthz" => Some(Page::new(Page::TEXT, "ok\n".into())),
        _ => None,
    })
}

fn how(end: GuestEnd) -> End {
    match end {
        GuestEnd::PoweredOff => End::PoweredOff,
        GuestEnd::Stopped => End::Forced,
        GuestEnd::Crashed(why) => End::Crashed(why),
        GuestEnd::Failed(why) => End::HostFailed(why),
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    signal: bool,
    typed: bool,
    devices: bool,
}

fn wait(watch: &Watch, signals: &SignalFd, until: Instant, to_devices: bool) -> Ready {
    let left = until.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    let mut fds = vec![
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(watch.guest.ended_fd(), PollFlags::POLLIN),
    ];
    let typed = watch.console.input().map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let devices =
        watch.guest.device_news_fd().filter(|_| to_devices).map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let (typing, telling) = (typed.is_some(), devices.is_some());
    fds.extend(typed);
    fds.extend(devices);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        // Cannot be waited for: look again soon rather than spin.
        Err(_) => std::thread::sleep(Duration::from_millis(100)),
    }
    let is_ready = |i: usize| fds.get(i).and_then(PollFd::any).unwrap_or(false);
    let devices = telling && is_ready(if typing { 3 } else { 2 });
    Ready { signal: is_ready(0), typed: typing && is_ready(2), devices }
}

pub(crate) fn signals() -> Result<SignalFd, SessionError> {
    let failed = |e: Errno| SessionError::Process { action: "take over signals", source: e.into() };
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, CHECK_NOW] {
        set.add(signal);
    }
    set.thread_block().map_err(failed)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(failed)
}

/// Whether a signal asked for the end while the guest was set up: then it is not started.
pub(crate) fn asked_to_end(signals: &SignalFd) -> bool {
    let mut asked = false;
    while let Ok(Some(signal)) = signals.read_signal() {
        asked |= signal.ssi_signo != CHECK_NOW as u32;
    }
    asked
}
