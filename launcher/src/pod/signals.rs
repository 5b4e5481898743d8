//! Signals of a launcher that waits for the agent: whoever asks it to end is heard.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::session::{SessionError, asked_to_end, signals};

/// Signals that come from here on.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

/// Blocks them for this thread and all that it starts; the session reads those that nobody has read.
pub(super) fn block() -> Result<Signals, SessionError> {
    signals().map(Signals)
}

impl Signals {
    /// Waits; true where somebody asked for the end meanwhile.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        asked_to_end(&self.0)
    }
}
