//! The thread that has the host's part done for a guest in a pod, as `pinion run` does it for others: it hears the session's
//! events, asks the agent, and keeps the status file.
//!
//! Lives on the emulator's CPUs, without a privilege, as long as the session. It must never hold the guest up: an agent that is
//! away is waited for only while the guest is armed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};

use super::agent::PodAgent;
use super::status::{CertificateStatus, StatusFile};
use crate::event::Event;
use crate::sandbox;
use pinion_endpoint::chain;

/// What the thread has.
pub(super) struct Steward {
    pub(super) program: &'static str,
    pub(super) agent: PodAgent,
    /// `namespace/name` of the guest.
    pub(super) owner: String,
    pub(super) status: StatusFile,
    pub(super) events: File,
    /// Where the session waits for a byte.
    pub(super) go: File,
}

impl Steward {
    /// Until the session has ended.
    pub(super) fn serve(mut self) {
        // Where the kernel refuses, it serves with what it was born with.
        let _ = sandbox::give_up_all_privileges();
        let Ok(events) = self.events.try_clone() else { return };
        for line in BufReader::new(events).lines() {
            let Ok(line) = line else { return };
            if let Ok(event) = serde_json::from_str::<Event>(&line) {
                self.hear(event);
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Armed => self.commit(),
            Event::Vectors => self.agent.route(&self.owner),
            Event::Verified { verdict, items, mismatches } => {
                self.say(&format!("verified: {items} items read back, verdict {verdict}"));
                self.judged(CertificateStatus { verdict, mismatches });
            }
            Event::Judged { verdict, mismatches } => self.judged(CertificateStatus { verdict, mismatches }),
            Event::Running => {
                self.say("running");
                self.status.change(super::status::LauncherStatus::run);
            }
            Event::Ended { end } => {
                self.say(&end.sentence());
                self.status.change(|s| s.end(&end));
            }
            Event::Drifted { what } => self.say(&format!("drifted: {what}")),
            Event::Repaired { what, failure: None } => self.say(&format!("put back: {what}")),
            Event::Repaired { what, failure: Some(why) } => {
                self.say(&format!("cannot be put back: {what}: {why}"));
            }
            Event::PowerButton { grace_seconds } => {
                self.say(&format!("power button pressed; force follows after {grace_seconds} s"));
            }
            Event::Warning { what } => self.say(&format!("warning: {what}")),
            Event::Phase { .. } => {}
        }
    }

    /// The session goes on whatever the agent says: its certificate tells what is missing.
    fn commit(&mut self) {
        match self.agent.commit(&self.owner) {
            Ok(changes) => self.status.change(|s| s.isolation = changes.isolation),
            Err(e) => self.say(&format!("warning: the node's agent: {}", chain(&e))),
        }
        let _ = self.go.write_all(b"\n");
    }

    fn judged(&mut self, certificate: CertificateStatus) {
        for mismatch in &certificate.mismatches {
            self.say(mismatch);
        }
        self.status.change(|s| s.certificate = Some(certificate));
    }

    fn say(&self, what: &str) {
        eprintln!("{}: {}: {what}", self.program, self.owner);
    }
}
