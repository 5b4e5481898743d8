//! The launchers of a file: started, heard, told to end, and waited for.
//!
//! One thread, one poll loop: signals for this process, and a pipe of events from each launcher. The
//! reservation of a guest is given back once its launcher is gone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, pipe2};
use pinion_launcher::{BackendKind, ConsoleMode, Event, LaunchSpec, TerminalMode, libvirt_folder};

use super::hosting::{Claim, Hosting};
use super::{Placed, report};
use crate::failure::Failure;

/// Where a launcher finds its spec and writes its events.
const SPEC_FD: i32 = 3;
const EVENT_FD: i32 = 4;
/// Where it is told that the host is ready for it.
const GO_FD: i32 = 5;

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("Cannot start {0:?}: it belongs beside the pinion command")]
    Start(PathBuf, #[source] io::Error),
    #[error("Cannot hand a guest over to its launcher")]
    HandOver(#[source] io::Error),
    #[error("Cannot take over signals")]
    Signals(#[source] io::Error),
}

/// A launcher, and what it holds.
pub(super) struct Launcher {
    name: String,
    process: Child,
    events: Option<File>,
    unread: Vec<u8>,
    /// What it did that nobody has looked at.
    news: News,
    /// Told once the host is ready.
    go: Option<File>,
    claim: Option<Claim>,
    /// Its files: one that is killed cannot remove them.
    folder: Option<PathBuf>,
    /// Put back when this goes: a launcher that is killed cannot.
    _terminal: Option<TerminalMode>,
}

/// What a launcher did.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    /// Its threads are on their CPUs.
    armed: bool,
    /// It runs.
    running: bool,
    /// It has set up vectors anew.
    vectors: bool,
}

/// Starts a launcher for each VM; with `detach`, they outlive this command.
///
/// # Errors
/// [`Failure::Failed`]; those that were started are gone then.
pub(super) fn start_all(placed: Vec<Placed>, detach: bool) -> Result<Vec<Launcher>, Failure> {
    let mut launchers: Vec<Launcher> = Vec::with_capacity(placed.len());
    for guest in placed {
        match start(guest, detach) {
            Ok(launcher) => launchers.push(launcher),
            Err(failure) => {
                launchers.iter_mut().for_each(Launcher::end_now);
                return Err(failure);
            }
        }
    }
    Ok(launchers)
}

fn start(guest: Placed, detach: bool) -> Result<Launcher, Failure> {
    let Placed { mut spec, mut claim, .. } = guest;
    spec.wait_fd = Some(GO_FD);
    let hand_over = |e| Failure::failed(StartError::HandOver(e));
    let spec_file = spec_file(&spec).map_err(hand_over)?;
    let (events, to_events): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).map_err(|e| hand_over(e.into()))?;
    let (from_go, go): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).map_err(|e| hand_over(e.into()))?;
    let program = crate::backend::program(spec.backend);
    let mut command = Command::new(&program);
    command.args(["--spec-fd", &SPEC_FD.to_string(), "--event-fd", &EVENT_FD.to_string()]);
    if detach {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    } else {
        command.args(["--keeper", &std::process::id().to_string()]);
    }
    if spec.console == ConsoleMode::Log {
        // Out of the terminal's reach: Ctrl-C comes to this process, which passes it on once.
        command.stdin(Stdio::null()).process_group(0);
    }
    command
        .fd_mappings(vec![
            FdMapping { parent_fd: spec_file, child_fd: SPEC_FD },
            FdMapping { parent_fd: to_events, child_fd: EVENT_FD },
            FdMapping { parent_fd: from_go, child_fd: GO_FD },
        ])
        .map_err(|e| hand_over(io::Error::other(e)))?;
    let terminal = match spec.console {
        ConsoleMode::Attached => TerminalMode::of_standard_input().map_err(hand_over)?,
        ConsoleMode::Log => None,
    };
    let process = command.spawn().map_err(|e| Failure::failed(StartError::Start(program, e)))?;
    // The command holds the other end of the pipe, whose end says that the launcher is gone.
    drop(command);
    let pid = i32::try_from(process.id()).unwrap_or(0);
    let mut launcher = Launcher {
        name: spec.placement.name,
        folder: (spec.backend == BackendKind::Libvirt).then(|| libvirt_folder(process.id())),
        process,
        events: Some(events.into()),
        unread: Vec::new(),
        news: News::default(),
        go: Some(go.into()),
        claim: None,
        _terminal: terminal,
    };
    if let Err(failure) = claim.transfer(pid) {
        launcher.end_now();
        return Err(failure);
    }
    launcher.claim = Some(claim);
    Ok(launcher)
}

fn spec_file(spec: &LaunchSpec) -> io::Result<OwnedFd> {
    let mut file: File = memfd_create(c"launch-spec", MFdFlags::MFD_CLOEXEC)?.into();
    file.write_all(&serde_json::to_vec(spec)?)?;
    Ok(file.into())
}

impl Launcher {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).unwrap_or(0);
        if pid > 0 {
            // It is a child that was not waited for: the number is still its own.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn end_now(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Reads what there is; false once the launcher is gone.
    fn hear(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = self.events.as_mut().map_or(Ok(0), |f| f.read(&mut bytes));
        let heard = bytes.get(..read.unwrap_or(0)).unwrap_or_default();
        self.unread.extend_from_slice(heard);
        while let Some(end) = self.unread.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            if let Ok(event) = serde_json::from_slice::<Event>(&line) {
                self.take_note(&event);
            }
        }
        !heard.is_empty()
    }

    fn take_note(&mut self, event: &Event) {
        self.news.armed |= *event == Event::Armed;
        self.news.running |= *event == Event::Running;
        self.news.vectors |= *event == Event::Vectors;
        report::event(&self.name, event);
    }

    /// Does for it what its news call for.
    fn attend(&mut self, host: &mut Hosting) {
        let pid = i32::try_from(self.process.id()).unwrap_or(0);
        if std::mem::take(&mut self.news.armed) {
            let isolation = self.claim.as_mut().and_then(|claim| host.isolate(&self.name, pid, claim));
            if let Some(isolation) = isolation {
                report::isolated(&self.name, isolation);
            }
            // It goes on by itself after a while.
            let _ = self.go.as_mut().map(|go| go.write_all(b"\n"));
        }
        if std::mem::take(&mut self.news.vectors)
            && let Some(claim) = &self.claim
        {
            host.route(claim);
        }
    }

    /// Leaves it to itself.
    fn leave(mut self) {
        if let Some(claim) = self.claim.take() {
            claim.keep();
        }
    }

    /// Waits for it and gives its place back.
    fn finish(&mut self) -> u8 {
        self.events = None;
        let status = self.process.wait();
        if let Some(folder) = self.folder.take() {
            // Most have done so themselves.
            let _ = std::fs::remove_dir_all(folder);
        }
        if let Some(Err(e)) = self.claim.take().map(Claim::release) {
            report::warning(&self.name, &e);
        }
        match status {
            Ok(status) => self.code(status),
            Err(e) => {
                report::warning(&self.name, &e);
                12
            }
        }
    }

    fn code(&self, status: ExitStatus) -> u8 {
        if let Some(signal) = status.signal() {
            report::killed(&self.name, signal);
            return 12;
        }
        status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(12)
    }
}

/// Waits for all launchers; signals are passed on to them. With `detach`, until all of them run.
///
/// # Errors
/// [`Failure::Silent`] with the exit code of the first guest that did not end well.
pub(super) fn wait_all(
    mut launchers: Vec<Launcher>,
    host: &mut Hosting,
    detach: bool,
) -> Result<(), Failure> {
    let signals = signals()?;
    let mut code = 0;
    let mut tended = Instant::now();
    while !launchers.is_empty() {
        let ready =
            wait(&signals, &launchers, host.pause().map(|each| each.saturating_sub(tended.elapsed())));
        if host.pause().is_some_and(|each| tended.elapsed() >= each) {
            host.tend();
            tended = Instant::now();
        }
        if ready.first().copied().unwrap_or(false) {
            while let Ok(Some(_)) = signals.read_signal() {
                launchers.iter().for_each(|l| l.signal(Signal::SIGTERM));
            }
        }
        let mut flags = ready.into_iter().skip(1);
        launchers.retain_mut(|launcher| {
            if !flags.next().unwrap_or(false) || launcher.hear() {
                launcher.attend(host);
                return true;
            }
            let ended = launcher.finish();
            host.let_go();
            if code == 0 {
                code = ended;
            }
            false
        });
        if detach && launchers.iter().all(|l| l.news.running) {
            launchers.drain(..).for_each(Launcher::leave);
        }
    }
    if code == 0 { Ok(()) } else { Err(Failure::Silent(code)) }
}

fn signals() -> Result<SignalFd, Failure> {
    let failed = |e: Errno| Failure::failed(StartError::Signals(e.into()));
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().map_err(failed)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(failed)
}

/// Which of signals and launchers have something to say, in this order.
fn wait(signals: &SignalFd, launchers: &[Launcher], limit: Option<Duration>) -> Vec<bool> {
    let limit = limit.map_or(PollTimeout::NONE, |d| {
        PollTimeout::try_from(d.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
    });
    let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    fds.extend(
        launchers.iter().filter_map(|l| l.events.as_ref()).map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN)),
    );
    if poll(&mut fds, limit).is_err() {
        return Vec::new();
    }
    fds.iter().map(|fd| fd.any().unwrap_or(false)).collect()
}
