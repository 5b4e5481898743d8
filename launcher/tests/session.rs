//! The session's order and ends, on a backend that has no guest: a thread stands for the vCPU.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, in its helper functions too")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use nix::sys::signal::{Signal, raise};
use nix::unistd::{gettid, pipe};
use pinion_launcher::backend::{
    Action, ArmedGuest, Backend, BackendError, DiskStats, GuestEnd, GuestStats, OpenedGuest, Pause,
    RunningGuest, Wiring,
};
use pinion_launcher::certificate::{Certificate, Range, Repair, Role, Scheduling, Verdict};
use pinion_launcher::{AuditPolicy, ConsoleMode, End, Event, Events, Guest, LaunchSpec, Session};
use pinion_machine::CpuSet;
use pinion_planner::{Emulator, Placement, Vcpu};

/// A certificate is about every thread of the process, those of other tests too.
static ALONE: Mutex<()> = Mutex::new(());

/// What the pretended guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    ArmFails,
    RunFails,
    PowersOff,
    Crashes,
    PowersOffWhenAsked,
    IgnoresThePowerButton,
    HearsTheSecondPress,
    IsMovedElsewhere,
    IsMovedWhileArmed,
    DiskIsFull,
    KernelMakesAThread,
    IsCalledOffWhileArmed,
}

#[derive(Debug)]
struct Fake {
    story: Story,
    /// Guests that hold something.
    alive: Arc<AtomicUsize>,
}

impl Fake {
    fn new(story: Story) -> Self {
        Self { story, alive: Arc::default() }
    }
}

#[derive(Debug)]
struct FakeGuest {
    story: Story,
    alive: Arc<AtomicUsize>,
    thread: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
    tid: i32,
    ended: EventFd,
    end: Mutex<Option<GuestEnd>>,
    looks: AtomicUsize,
    pressed: AtomicUsize,
    made: Mutex<Option<(mpsc::Sender<()>, JoinHandle<()>)>>,
}

impl Backend for Fake {
    fn open(&self, spec: &LaunchSpec, wiring: Wiring) -> Result<Box<dyn OpenedGuest>, BackendError> {
        // What is missing is told as the native one tells it.
        Guest::open(&spec.instance, &spec.placement, spec.pod_volumes.as_ref(), wiring)?;
        Ok(Box::new(Fake { story: self.story, alive: Arc::clone(&self.alive) }))
    }
}

impl OpenedGuest for Fake {
    fn arm(
        self: Box<Self>,
        progress: &mut dyn FnMut(&'static str, Duration),
    ) -> Result<Box<dyn ArmedGuest>, BackendError> {
        progress("memory", Duration::from_millis(1));
        if self.story == Story::ArmFails {
            return Err(Box::new(io::Error::other("Cannot open /dev/kvm: is it there?")));
        }
        if self.story == Story::IsCalledOffWhileArmed {
            raise(Signal::SIGTERM).unwrap();
        }
        let (stop, stopped) = mpsc::channel();
        let (say, hear) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            say.send(gettid().as_raw()).unwrap();
            let _: Result<(), _> = stopped.recv();
        });
        self.alive.fetch_add(1, Ordering::SeqCst);
        let tid = hear.recv().unwrap();
        if self.story == Story::IsMovedWhileArmed {
            vmm_host::set_affinity(tid, &numbers(&one_cpu())).unwrap();
        }
        Ok(Box::new(FakeGuest {
            story: self.story,
            alive: Arc::clone(&self.alive),
            thread: Some((stop, thread)),
            tid,
            ended: EventFd::new().unwrap(),
            end: Mutex::new(None),
            looks: AtomicUsize::new(0),
            pressed: AtomicUsize::new(0),
            made: Mutex::new(None),
        }))
    }
}

impl Drop for FakeGuest {
    fn drop(&mut self) {
        for (stop, thread) in self.thread.take().into_iter().chain(self.made.lock().unwrap().take()) {
            drop(stop);
            thread.join().unwrap();
        }
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Threads;

impl Repair for Threads {
    fn set_cpus(&self, tid: i32, cpus: &CpuSet) -> io::Result<()> {
        vmm_host::set_affinity(tid, &numbers(cpus)).map_err(io::Error::other)
    }

    fn set_scheduling(&self, tid: i32, _: Scheduling) -> io::Result<()> {
        vmm_host::set_ordinary(tid).map_err(io::Error::other)
    }
}

impl ArmedGuest for FakeGuest {
    fn process(&self) -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    fn threads(&self) -> Vec<(Role, i32)> {
        vec![(Role::Vcpu(0), self.tid)]
    }

    fn memory(&self) -> Vec<(u32, Vec<Range>)> {
        vec![]
    }

    fn repair(&self) -> Box<dyn Repair> {
        Box::new(Threads)
    }

    fn run(self: Box<Self>) -> Result<Box<dyn RunningGuest>, BackendError> {
        match self.story {
            Story::RunFails => return Err(Box::new(io::Error::other("The vCPU did not start"))),
            Story::PowersOff | Story::IsMovedWhileArmed => self.end_with(GuestEnd::PoweredOff),
            Story::Crashes => self.end_with(GuestEnd::Crashed("triple fault".into())),
            Story::PowersOffWhenAsked | Story::IgnoresThePowerButton | Story::HearsTheSecondPress => {
                raise(Signal::SIGTERM).unwrap();
            }
            Story::IsMovedElsewhere => vmm_host::set_affinity(self.tid, &numbers(&one_cpu())).unwrap(),
            Story::KernelMakesAThread => self.make_thread(),
            Story::IsCalledOffWhileArmed => panic!("it was let go"),
            Story::DiskIsFull | Story::ArmFails => {}
        }
        Ok(self)
    }
}

impl FakeGuest {
    /// As the kernel does: a thread that nobody asked for, on the vCPU's CPU.
    fn make_thread(&self) {
        let (stop, stopped) = mpsc::channel::<()>();
        let (say, hear) = mpsc::channel();
        let thread = std::thread::Builder::new().name("worker".into()).spawn(move || {
            vmm_host::set_affinity(0, &numbers(&one_cpu())).unwrap();
            say.send(()).unwrap();
            let _ = stopped.recv();
        });
        hear.recv().unwrap();
        *self.made.lock().unwrap() = Some((stop, thread.unwrap()));
    }

    fn end_with(&self, end: GuestEnd) {
        *self.end.lock().unwrap() = Some(end);
        self.ended.write(1).unwrap();
    }
}

impl RunningGuest for FakeGuest {
    fn power_button(&self) {
        match self.story {
            Story::IgnoresThePowerButton => raise(Signal::SIGTERM).unwrap(),
            Story::HearsTheSecondPress if self.pressed.fetch_add(1, Ordering::SeqCst) == 0 => {}
            _ => self.end_with(GuestEnd::PoweredOff),
        }
    }

    fn stop(&self) {
        self.end_with(GuestEnd::Stopped);
    }

    fn ended_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    fn end(&self) -> Option<GuestEnd> {
        // Each look of these stories asks for a check, and the third is the last.
        if matches!(self.story, Story::IsMovedElsewhere | Story::DiskIsFull | Story::KernelMakesAThread) {
            match self.looks.fetch_add(1, Ordering::SeqCst) {
                0..3 => raise(Signal::SIGUSR1).unwrap(),
                _ => self.end_with(GuestEnd::PoweredOff),
            }
        }
        self.end.lock().unwrap().clone()
    }

    fn stats(&self) -> GuestStats {
        let mut stats = GuestStats::default();
        if self.story == Story::DiskIsFull {
            let last_error = Some("Cannot write to disk image /a: No space left on device".into());
            stats.disks =
                vec![DiskStats { name: "root".into(), errors: 2, last_error, ..DiskStats::default() }];
        }
        stats
    }

    fn act(&self, action: Action) -> Result<(), BackendError> {
        Err(Box::new(io::Error::other(format!("no story has anybody {} it", action.verb()))))
    }

    fn pause(&self) -> Option<Pause> {
        None
    }
}

fn numbers(cpus: &CpuSet) -> Vec<u32> {
    cpus.iter().map(|c| c.0).collect()
}

/// The CPUs of this process.
fn own_cpus() -> CpuSet {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = text.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap();
    list.trim().parse().unwrap()
}

fn one_cpu() -> CpuSet {
    own_cpus().first().into_iter().collect()
}

fn spec(folder: &Path, vcpu: CpuSet) -> LaunchSpec {
    let instance = serde_json::json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "a"},
        "spec": {"domain": {
            "devices": {},
            "firmware": {"kernelBoot": {"container": {
                "image": format!("file://{}", folder.display()), "kernelPath": "vmlinuz"
            }}}
        }}
    });
    let vcpu = Vcpu { id: 0, socket: 0, core: 0, thread: 0, cell: 0, cpu: None, cpus: vcpu, realtime: false };
    LaunchSpec {
        api_version: LaunchSpec::API_VERSION.into(),
        kind: LaunchSpec::KIND.into(),
        backend: pinion_launcher::BackendKind::Native,
        instance: serde_json::from_value(instance).unwrap(),
        placement: Placement {
            name: "default/a".into(),
            generation: 0,
            vcpus: vec![vcpu],
            emulator: Emulator { cpus: own_cpus() },
            io_threads: vec![],
            cells: vec![],
            devices: vec![],
        },
        pod_volumes: None,
        cluster: None,
        metrics: None,
        sockets: None,
        shared_pool: false,
        wait_fd: None,
        certificate: Some(folder.join("certificate.json")),
        console: ConsoleMode::Log,
        audit: AuditPolicy { interval_seconds: 3600, repair: true },
    }
}

#[derive(Debug)]
struct Told {
    end: End,
    events: Vec<Event>,
    certificate: Option<Certificate>,
}

/// Runs a session, and holds that it leaves nothing behind.
fn tell_with(story: Story, prepare: impl FnOnce(&Path, &mut LaunchSpec)) -> Told {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vmlinuz"), b"no matter").unwrap();
    let mut spec = spec(folder.path(), own_cpus());
    prepare(folder.path(), &mut spec);
    let events = folder.path().join("events");
    let sink = File::create(&events).unwrap();
    let backend = Fake::new(story);
    let end = Session::new(spec, Events::to_descriptor(sink.as_raw_fd()).unwrap()).run(&backend);
    assert_eq!(backend.alive.load(Ordering::SeqCst), 0, "the guest holds something still");
    let text = std::fs::read_to_string(&events).unwrap();
    let events: Vec<Event> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(events.last(), Some(&Event::Ended { end: end.clone() }));
    let certificate = std::fs::read(folder.path().join("certificate.json")).ok();
    Told { end, events, certificate: certificate.map(|text| serde_json::from_slice(&text).unwrap()) }
}

fn tell(story: Story) -> Told {
    tell_with(story, |_, _| {})
}

#[test]
fn a_guest_is_armed_verified_and_run_in_this_order() {
    let told = tell(Story::PowersOff);
    assert_eq!((told.end.clone(), told.end.code()), (End::PoweredOff, 0));
    let order: Vec<_> = told.events.iter().map(std::mem::discriminant).collect();
    let expected = [
        Event::Phase { phase: String::new(), took_ns: 0 },
        Event::Armed,
        Event::Verified { verdict: Verdict::Holds, items: 0, mismatches: vec![] },
        Event::Running,
        Event::Ended { end: End::PoweredOff },
    ];
    assert_eq!(order, expected.each_ref().map(std::mem::discriminant));
    assert_eq!(told.certificate.unwrap().verdict, Verdict::Holds);
}

#[test]
fn a_guest_that_cannot_be_armed_ends_with_the_cause_and_no_certificate() {
    let told = tell(Story::ArmFails);
    assert_eq!(told.end, End::NotArmed("Cannot open /dev/kvm: is it there?".into()));
    assert_eq!(told.end.code(), 1);
    assert!(told.certificate.is_none());
}

#[test]
fn a_guest_that_is_not_where_the_plan_says_never_runs() {
    let told = tell_with(Story::PowersOff, |_, spec| {
        spec.placement.vcpus[0].cpus = "60000".parse().unwrap();
    });
    assert!(matches!(&told.end, End::NotVerified(why) if why[0].starts_with("vcpu/0: cpus planned 60000")));
    assert_eq!(told.end.code(), 13);
    assert!(!told.events.contains(&Event::Running));
    assert_eq!(told.certificate.unwrap().verdict, Verdict::Drifted);
}

#[test]
fn a_guest_that_cannot_be_let_go_is_the_hosts_failure() {
    let told = tell(Story::RunFails);
    assert_eq!((told.end.clone(), told.end.code()), (End::HostFailed("The vCPU did not start".into()), 12));
}

#[test]
fn a_crash_is_told_as_one() {
    let told = tell(Story::Crashes);
    assert_eq!((told.end.clone(), told.end.code()), (End::Crashed("triple fault".into()), 11));
}

#[test]
fn a_signal_presses_the_power_button() {
    let told = tell(Story::PowersOffWhenAsked);
    assert_eq!(told.end, End::PoweredOff);
    assert!(told.events.contains(&Event::PowerButton { grace_seconds: 30 }));
}

#[test]
fn a_guest_that_does_not_hear_the_button_yet_is_asked_again() {
    let told = tell(Story::HearsTheSecondPress);
    assert_eq!(told.end, End::PoweredOff);
    let pressed = told.events.iter().filter(|e| matches!(e, Event::PowerButton { .. })).count();
    assert_eq!(pressed, 1, "told once");
}

#[test]
fn a_signal_while_it_is_set_up_ends_it_before_its_first_instruction() {
    let told = tell(Story::IsCalledOffWhileArmed);
    assert_eq!(told.end, End::Forced);
    assert!(!told.events.contains(&Event::Running));
}

#[test]
fn a_second_signal_forces() {
    let told = tell(Story::IgnoresThePowerButton);
    assert_eq!((told.end.clone(), told.end.code()), (End::Forced, 10));
}

#[test]
fn without_time_to_end_a_signal_forces_at_once() {
    let told = tell_with(Story::PowersOffWhenAsked, |_, spec| {
        spec.instance.spec.termination_grace_period_seconds = Some(0);
    });
    assert_eq!(told.end, End::Forced);
    assert!(!told.events.iter().any(|e| matches!(e, Event::PowerButton { .. })));
}

#[test]
fn a_thread_that_is_moved_is_told_as_found_and_put_back_at_the_next_check() {
    if own_cpus().len() < 2 {
        println!("skipped: this process has one CPU, so there is nowhere else to move a thread");
        return;
    }
    let told = tell(Story::IsMovedElsewhere);
    let planned = own_cpus();
    let drifted = Event::Drifted { what: format!("vcpu/0 Cpus: planned {planned}, found {}", one_cpu()) };
    let put_back = Event::Repaired { what: "vcpu Cpus".into(), failure: None };
    let at = |event: &Event| told.events.iter().position(|e| e == event);
    assert!(at(&drifted).unwrap() < at(&put_back).unwrap(), "{:?}", told.events);
    assert_eq!(told.certificate.unwrap().verdict, Verdict::Holds);
}

#[test]
fn a_thread_that_the_kernel_makes_is_put_with_the_emulators_and_is_no_drift() {
    if own_cpus().len() < 2 {
        println!("skipped: this process has one CPU, so there is nowhere else for a thread to be born");
        return;
    }
    let told = tell(Story::KernelMakesAThread);
    let settled = told
        .events
        .iter()
        .filter(|e| matches!(e, Event::Repaired { what, failure: None } if what.starts_with("worker")));
    assert_eq!(settled.count(), 1, "{:?}", told.events);
    assert!(!told.events.iter().any(|e| matches!(e, Event::Drifted { .. })), "{:?}", told.events);
    assert_eq!(told.certificate.unwrap().verdict, Verdict::Holds);
}

#[test]
fn a_guest_that_is_moved_before_its_cpus_are_its_own_is_armed_again() {
    if own_cpus().len() < 2 {
        println!("skipped: this process has one CPU, so there is nowhere else to move a thread");
        return;
    }
    // The host answers each time that it is armed, but no more than twice.
    let (host, answers) = pipe().unwrap();
    File::from(answers.try_clone().unwrap()).write_all(b"\n\n").unwrap();
    let told = tell_with(Story::IsMovedWhileArmed, |_, spec| spec.wait_fd = Some(host.as_raw_fd()));
    assert_eq!(told.end, End::PoweredOff, "{:?}", told.events);
    assert_eq!(told.events.iter().filter(|e| **e == Event::Armed).count(), 2);
    assert_eq!(told.certificate.unwrap().verdict, Verdict::Holds);
}

#[test]
fn a_moved_thread_is_left_where_repair_is_off() {
    if own_cpus().len() < 2 {
        println!("skipped: this process has one CPU, so there is nowhere else to move a thread");
        return;
    }
    let told = tell_with(Story::IsMovedElsewhere, |_, spec| spec.audit.repair = false);
    assert!(!told.events.iter().any(|e| matches!(e, Event::Repaired { .. })));
    let certificate = told.certificate.unwrap();
    assert_eq!(certificate.verdict, Verdict::Drifted);
    assert!(certificate.sequence >= 4, "each signal has it checked");
}

#[test]
fn a_disk_that_fails_is_told_once() {
    let told = tell(Story::DiskIsFull);
    let warnings =
        told.events.iter().filter(|e| matches!(e, Event::Warning { what } if what.contains("No space")));
    assert_eq!(warnings.count(), 1, "{:?}", told.events);
}

#[test]
fn a_missing_kernel_is_named_by_its_field_before_anything_starts() {
    let told = tell_with(Story::PowersOff, |folder, _| std::fs::remove_file(folder.join("vmlinuz")).unwrap());
    let End::NotArmed(why) = &told.end else { unreachable!("{:?}", told.end) };
    assert!(why.contains("spec.domain.firmware.kernelBoot.container.kernelPath"), "{why}");
    assert_eq!(told.events.len(), 1);
}

#[test]
fn a_kernel_behind_a_link_that_leads_out_of_its_directory_is_not_opened() {
    let told = tell_with(Story::PowersOff, |folder, _| {
        std::fs::remove_file(folder.join("vmlinuz")).unwrap();
        std::os::unix::fs::symlink("../../etc/passwd", folder.join("vmlinuz")).unwrap();
    });
    assert!(matches!(told.end, End::NotArmed(_)));
}

#[test]
fn a_certificate_that_cannot_be_written_is_a_warning() {
    let told = tell_with(Story::PowersOff, |folder, spec| {
        spec.certificate = Some(folder.join("missing/certificate.json"));
    });
    assert_eq!(told.end, End::PoweredOff);
    assert!(told.events.iter().any(|e| matches!(e, Event::Warning { what } if what.contains("certificate"))));
}

#[test]
fn metrics_on_an_address_in_use_end_the_session_before_anything_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let told = tell_with(Story::PowersOff, |_, spec| spec.metrics = Some(address));
    assert!(matches!(&told.end, End::NotArmed(why) if why.contains(&address.to_string())));
}
