//! Limits of a guest's process that it may not raise itself: a launcher in a pod has no capabilities.
//!
//! Called by the desk before a guest is armed. The process then does for itself what `pinion run` as root does.

use std::io;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// The priority that real-time vCPUs run with, the highest that a launcher may take.
const REALTIME: u64 = 1;

/// Lets a process lock its memory, for devices and real-time vCPUs, and make threads real-time. What memory it may have at
/// all is the container's limit.
pub(crate) fn raise(pid: i32, devices: bool, realtime: bool) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(pid).filter(|_| devices || realtime) else { return Ok(()) };
    prlimit(Some(pid), Resource::Memlock, Rlimit { current: None, maximum: None })?;
    if realtime {
        prlimit(Some(pid), Resource::Rtprio, Rlimit { current: Some(REALTIME), maximum: Some(REALTIME) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_may_lock_its_memory_and_make_threads_real_time_only_where_its_guest_needs_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let limits = || fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let before = limits();
        raise(pid, false, false).unwrap();
        assert_eq!(limits(), before);
        let raised = raise(pid, true, true);
        let after = limits();
        child.kill().unwrap();
        child.wait().unwrap();
        if let Err(e) = raised {
            println!("skipped: {e}");
            return;
        }
        let line = |name: &str| after.lines().find(|l| l.starts_with(name)).unwrap().to_owned();
        assert!(line("Max locked memory").contains("unlimited"), "{after}");
        assert!(line("Max realtime priority").contains('1'), "{after}");
    }
}
