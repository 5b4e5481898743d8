//! The loop that answers the guest.
//!
//! Runs on a thread of its own, on housekeeping CPUs, for as long as the guest lives. It must never be kept busy: a
//! guest that floods it waits.

use std::io;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use crate::answer::reply;
use crate::lease::Lease;

/// Where clients listen. Source: RFC 2131, section 4.1.
const CLIENT_PORT: u16 = 68;
/// Longest message that is read whole; what is longer is cut, and its options end there.
const LONGEST: usize = 4096;
/// Messages that are taken at once, and how long each of them takes to be made good for: ten a second.
const BURST: u32 = 20;
const EACH: Duration = Duration::from_millis(100);

/// Answers what comes in on `socket` until the socket fails, and gives that error. The socket is one that the node
/// agent has bound to the guest's link.
pub fn serve(socket: &UdpSocket, lease: &Lease) -> io::Error {
    let mut pace = Pace::new(Instant::now());
    let mut message = [0; LONGEST];
    loop {
        let wait = pace.take(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        let length = match socket.recv_from(&mut message) {
            Ok((length, _)) => length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return e,
        };
        let Some(reply) = message.get(..length).and_then(|message| reply(message, lease)) else { continue };
        // What is lost here the guest asks for again.
        let _ = socket.send_to(&reply.bytes, (reply.to, CLIENT_PORT));
    }
}

/// How fast messages are taken.
#[derive(Debug)]
struct Pace {
    /// Up to when what was taken is made good for.
    paid: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { paid: now }
    }

    /// Takes one more message, and says how long to wait before it.
    fn take(&mut self, now: Instant) -> Duration {
        self.paid = self.paid.max(now) + EACH;
        self.paid.duration_since(now).saturating_sub(EACH * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_taken_ten_a_second_after_its_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!((0..BURST).all(|_| pace.take(start).is_zero()));
        let mut now = start;
        for _ in 0..100 {
            now += pace.take(now);
        }
        assert_eq!(now - start, EACH * 100);
        // After a quiet minute, a burst is free again, and no more than one.
        now += Duration::from_secs(60);
        assert!((0..BURST).all(|_| pace.take(now).is_zero()));
        assert_eq!(pace.take(now), EACH);
    }
}
