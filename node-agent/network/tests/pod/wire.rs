//! Frames of a guest without a network stack: UDP over IPv4, each behind a virtio header, on a tap.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::world::{PATIENCE, SILENCE};

const VIRTIO: usize = 12;
const ETHERNET: usize = 14;
const HEADERS: usize = VIRTIO + ETHERNET + 20 + 8;

/// A tap, from the guest's end.
pub(crate) struct Wire {
    tap: File,
    mac: [u8; 6],
}

impl Wire {
    pub(crate) fn new(tap: OwnedFd, mac: [u8; 6]) -> Self {
        Self { tap: File::from(tap), mac }
    }

    /// Sends a datagram to the MAC address `via`.
    pub(crate) fn send(&mut self, via: [u8; 6], from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let length = |headers: usize| u16::try_from(headers + payload.len()).unwrap().to_be_bytes();
        let mut ip = vec![0x45, 0];
        ip.extend(length(28));
        ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        ip.extend(from.ip().octets());
        ip.extend(to.ip().octets());
        let words = ip.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
        let sum: u32 = words.sum();
        let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
        let mut frame = vec![0; VIRTIO];
        frame.extend(via);
        frame.extend(self.mac);
        frame.extend([8, 0]);
        frame.extend(ip);
        frame.extend(from.port().to_be_bytes());
        frame.extend(to.port().to_be_bytes());
        frame.extend(length(8));
        frame.extend([0, 0]);
        frame.extend(payload);
        self.tap.write_all(&frame).unwrap();
    }

    /// The next datagram to `port`: who sent it, and its payload.
    pub(crate) fn receive(&mut self, port: u16) -> (Ipv4Addr, Vec<u8>) {
        self.wait(port, PATIENCE).unwrap()
    }

    /// No datagram to `port` comes.
    pub(crate) fn quiet(&mut self, port: u16) -> bool {
        self.wait(port, SILENCE).is_none()
    }

    fn wait(&mut self, port: u16, patience: Duration) -> Option<(Ipv4Addr, Vec<u8>)> {
        let until = Instant::now() + patience;
        let mut frame = vec![0; 70_000];
        while Instant::now() < until {
            let mut ready = [PollFd::new(self.tap.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::from(50_u8)).unwrap();
            let Ok(length) = self.tap.read(&mut frame) else { continue };
            let frame = &frame[..length];
            let is_udp =
                length >= HEADERS && frame[VIRTIO + 12..VIRTIO + 14] == [8, 0] && frame[VIRTIO + 23] == 17;
            if is_udp && frame[VIRTIO + 36..VIRTIO + 38] == port.to_be_bytes() {
                let source: [u8; 4] = frame[VIRTIO + 26..VIRTIO + 30].try_into().unwrap();
                return Some((source.into(), frame[HEADERS..].to_vec()));
            }
        }
        None
    }
}
