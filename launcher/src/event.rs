//! What a launcher tells whoever started it: one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::End;
use crate::certificate::Verdict;

/// Something that happened to a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum Event {
    /// A phase of the start is done.
    #[serde(rename_all = "camelCase")]
    Phase {
        /// Its name.
        phase: String,
        /// How long it took, ns.
        took_ns: u64,
    },
    /// The pages are populated.
    Armed,
    /// The placement was read back for the first time.
    Verified {
        /// The worst verdict.
        verdict: Verdict,
        /// Items that were checked.
        items: usize,
        /// Those that do not hold.
        mismatches: Vec<String>,
    },
    /// It was read back again, and the verdict or what does not hold is another than before.
    Judged {
        /// The worst verdict.
        verdict: Verdict,
        /// Items that do not hold.
        mismatches: Vec<String>,
    },
    /// The guest runs.
    Running,
    /// Something was found elsewhere than planned.
    Drifted {
        /// What.
        what: String,
    },
    /// It was tried to put something back.
    Repaired {
        /// What.
        what: String,
        /// Why it did not work; absent where it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
    },
    /// The power button was pressed.
    #[serde(rename_all = "camelCase")]
    PowerButton {
        /// Seconds until force.
        grace_seconds: u64,
    },
    /// The guest set up vectors of passed-through devices anew: the host made new interrupts for them.
    Vectors,
    /// Something that the user should know.
    Warning {
        /// What.
        what: String,
    },
    /// It is over.
    Ended {
        /// How.
        #[serde(flatten)]
        end: End,
    },
}

/// Where events go.
#[derive(Debug)]
pub struct Events(Option<File>);

impl Events {
    /// To an inherited descriptor.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn to_descriptor(fd: i32) -> io::Result<Self> {
        Ok(Self(Some(OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}"))?)))
    }

    /// Nowhere.
    #[must_use]
    pub const fn to_nobody() -> Self {
        Self(None)
    }

    /// Tells of one. Nobody listens any more if that fails: the guest does not care.
    pub fn tell(&mut self, event: &Event) {
        if let (Some(file), Ok(mut line)) = (&mut self.0, serde_json::to_string(event)) {
            line.push('\n');
            let _ = file.write_all(line.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_one_line_with_the_keys_that_others_read() {
        let lines = [
            (
                Event::Phase { phase: "memory".into(), took_ns: 5 },
                r#"{"event":"phase","phase":"memory","tookNs":5}"#,
            ),
            (Event::Armed, r#"{"event":"armed"}"#),
            (
                Event::Verified { verdict: Verdict::Holds, items: 3, mismatches: vec![] },
                r#"{"event":"verified","verdict":"holds","items":3,"mismatches":[]}"#,
            ),
            (Event::PowerButton { grace_seconds: 30 }, r#"{"event":"powerButton","graceSeconds":30}"#),
            (Event::Vectors, r#"{"event":"vectors"}"#),
            (Event::Repaired { what: "a".into(), failure: None }, r#"{"event":"repaired","what":"a"}"#),
            (Event::Ended { end: End::PoweredOff }, r#"{"event":"ended","how":"poweredOff"}"#),
            (
                Event::Ended { end: End::Crashed("triple\nfault".into()) },
                r#"{"event":"ended","how":"crashed","why":"triple\nfault"}"#,
            ),
        ];
        for (event, line) in lines {
            assert_eq!(serde_json::to_string(&event).unwrap(), line);
            assert_eq!(serde_json::from_str::<Event>(line).unwrap(), event);
        }
    }

    #[test]
    fn a_listener_that_has_gone_is_nothing_to_the_guest() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
        let mut events = Events::to_descriptor(fd).unwrap();
        drop((reader, writer));
        events.tell(&Event::Armed);
    }
}
