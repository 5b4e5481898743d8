//! What the kernel tells of devices: that they come, go, change and get drivers.
//!
//! Held by whoever keeps a machine up to date, on its own thread. It only says that it is time to read again.
//!
//! Source: the kernel's `lib/kobject_uevent.c`; `netlink(7)`, NETLINK_KOBJECT_UEVENT.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// Longest message, bytes: the kernel's own buffer is of 2048, and the header is shorter than the rest.
const LONGEST: usize = 8192;

/// Messages of the kernel about devices of some subsystems.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
    subsystems: &'static [&'static str],
}

impl Uevents {
    /// Listens from now on. Readable as a descriptor when there is something to be heard.
    ///
    /// # Errors
    /// From the operating system: a network namespace of its own, as in a container, hears nothing and may be refused.
    pub fn listen(subsystems: &'static [&'static str]) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Self { socket, subsystems })
    }

    /// Takes all messages that are there, and says whether one matters. One that was lost may have.
    #[must_use]
    pub fn heard(&self) -> bool {
        let mut matters = false;
        let mut message = [0; LONGEST];
        loop {
            match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => matters |= self.is_about(message.get(..length).unwrap_or_default()),
                Err(Errno::ENOBUFS) => matters = true,
                Err(Errno::EINTR) => {}
                Err(_) => return matters,
            }
        }
    }

    fn is_about(&self, message: &[u8]) -> bool {
        let text = String::from_utf8_lossy(message);
        let subsystem = text.split('\0').find_map(|line| line.strip_prefix("SUBSYSTEM="));
        subsystem.is_some_and(|s| self.subsystems.contains(&s))
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_by_their_subsystem() {
        let (socket, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let uevents = Uevents { socket: socket.into(), subsystems: &["pci"] };
        assert!(uevents.is_about(b"unbind@/devices/pci0\0ACTION=unbind\0SUBSYSTEM=pci\0SEQNUM=7\0"));
        assert!(!uevents.is_about(b"add@/devices/a\0ACTION=add\0SUBSYSTEM=net\0"));
        assert!(!uevents.is_about(b"\xff\xfe"));
        assert!(!uevents.heard(), "nothing to be read is nothing heard");
    }

    #[test]
    fn what_is_sent_is_heard_once() {
        let (socket, kernel) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let uevents = Uevents { socket: socket.into(), subsystems: &["pci"] };
        kernel.send(b"add@/devices/a\0SUBSYSTEM=net\0").unwrap();
        kernel.send(b"add@/devices/b\0SUBSYSTEM=pci\0").unwrap();
        assert!(uevents.heard() && !uevents.heard());
    }
}
