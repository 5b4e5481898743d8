//! What the kernel tells of devices: that they come, go, change and get drivers.
//!
//! Held by whoever keeps a machine up to date, on its own thread. It only says that it is time to read again, and shows what
//! was said.
//!
//! Source: the kernel's `lib/kobject_uevent.c`; `netlink(7)`, NETLINK_KOBJECT_UEVENT.

use std::borrow::Cow;
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
    /// From the operating system. A container hears as its host does, also in a network namespace of its own; in a user namespace of
    /// its own it hears nothing.
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
        self.each(|_| ())
    }

    /// As [`Uevents::heard`], and shows those that matter.
    #[must_use]
    pub fn each(&self, mut see: impl FnMut(&Uevent<'_>)) -> bool {
        let mut matters = false;
        let mut message = [0; LONGEST];
        loop {
            match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let event = Uevent(String::from_utf8_lossy(message.get(..length).unwrap_or_default()));
                    if self.is_about(&event) {
                        matters = true;
                        see(&event);
                    }
                }
                Err(Errno::ENOBUFS) => matters = true,
                Err(Errno::EINTR) => {}
                Err(_) => return matters,
            }
        }
    }

    fn is_about(&self, event: &Uevent<'_>) -> bool {
        event.field("SUBSYSTEM").is_some_and(|s| self.subsystems.contains(&s))
    }
}

/// What the kernel says of one device.
#[derive(Clone, Debug)]
pub struct Uevent<'a>(Cow<'a, str>);

impl<'a> Uevent<'a> {
    /// A message as the kernel writes it: lines that end with a zero.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self(text.into())
    }

    /// A field: `ACTION`, `SUBSYSTEM`, `PCI_SLOT_NAME` and so on.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0.split('\0').find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
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
        let event = Uevent::new("unbind@/devices/pci0\0ACTION=unbind\0SUBSYSTEM=pci\0SEQNUM=7\0");
        assert!(uevents.is_about(&event));
        assert_eq!((event.field("ACTION"), event.field("SEQ")), (Some("unbind"), None));
        assert!(!uevents.is_about(&Uevent::new("add@/devices/a\0ACTION=add\0SUBSYSTEM=net\0")));
        assert!(!uevents.is_about(&Uevent::new("\u{fffd}")));
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
