//! Tap devices: the host's end of a guest's network interface.
//!
//! A tap device that this process makes is not persistent: it is gone with the descriptor,
//! however the process ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const TUN: &str = "/dev/net/tun";
/// Virtio header with `num_buffers` (virtio 1.x).
static HEADER_LEN: libc::c_int = 12;
/// None until the guest has said what it can take.
const OFFLOADS: libc::c_int = 0;
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const TUNSETOWNER: libc::c_ulong = 0x4004_54cc;
const SIOCBRADDIF: libc::c_ulong = 0x89a2;

nix::ioctl_write_ptr_bad!(tun_set_iff, TUNSETIFF, libc::ifreq);
nix::ioctl_write_ptr_bad!(tun_set_header_len, TUNSETVNETHDRSZ, libc::c_int);
nix::ioctl_write_int_bad!(tun_set_offload, TUNSETOFFLOAD);
nix::ioctl_read_bad!(tun_get_iff, TUNGETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_persist, TUNSETPERSIST);
nix::ioctl_write_int_bad!(tun_set_owner, TUNSETOWNER);
nix::ioctl_readwrite_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
nix::ioctl_readwrite_bad!(get_index, libc::SIOCGIFINDEX, libc::ifreq);
nix::ioctl_write_ptr_bad!(bridge_add, SIOCBRADDIF, libc::ifreq);

/// Why there is no tap device.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// Not a name the kernel takes.
    #[error("{0:?} is not the name of a network interface: 1 to 15 bytes without '/' and white space")]
    Name(String),
    /// No such interface.
    #[error(
        "There is no network interface {0:?} on this host: make the tap device or bridge first, e.g. `ip tuntap add {0} mode tap`"
    )]
    Absent(String),
    /// Exists, but is neither a tap device nor a bridge.
    #[error("The network interface {0:?} is neither a tap device nor a bridge")]
    OtherKind(String),
    /// Somebody has it open.
    #[error("The tap device {0:?} is in use by another guest or program")]
    InUse(String),
    /// The kernel refused.
    #[error(
        "Cannot {action} for the network interface {name:?}: run as root or with CAP_NET_ADMIN, or let root make a tap device for this user"
    )]
    Request {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The interface.
        name: String,
        /// From the kernel.
        source: io::Error,
    },
}

/// A tap device, open, with virtio headers, not blocking.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
}

impl Tap {
    /// Opens the tap device `name`; where `name` is a bridge, makes a tap device and adds it there.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn open(name: &str) -> Result<Self, TapError> {
        let valid = |b: u8| !b.is_ascii_whitespace() && b != b'/' && b != 0;
        if name.is_empty() || name.len() > 15 || matches!(name, "." | "..") || !name.bytes().all(valid) {
            return Err(TapError::Name(name.to_owned()));
        }
        let folder = Path::new("/sys/class/net").join(name);
        if !folder.exists() {
            return Err(TapError::Absent(name.to_owned()));
        }
        if folder.join("bridge").exists() {
            let tap = Self::attach("pinion%d")?;
            tap.join_bridge(name)?;
            tap.bring_up()?;
            return Ok(tap);
        }
        if !folder.join("tun_flags").exists() {
            return Err(TapError::OtherKind(name.to_owned()));
        }
        let tap = Self::attach(name)?;
        tap.bring_up()?;
        Ok(tap)
    }

    /// Its name on the host.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leaves a tap device that somebody else has made to another program of this user, which opens it by the name that is
    /// returned: it stays when its descriptor goes, until its network namespace does.
    ///
    /// # Errors
    /// [`TapError`] where the descriptor is no tap device's.
    pub fn leave(tap: OwnedFd) -> Result<String, TapError> {
        let refused = |action, name: &str| {
            let name = name.to_owned();
            move |e: nix::errno::Errno| TapError::Request { action, name, source: e.into() }
        };
        let mut named = request("");
        // SAFETY: a valid ifreq that outlives the call, which writes the name into it.
        unsafe { tun_get_iff(tap.as_raw_fd(), &raw mut named) }
            .map_err(refused("read the name of the tap device", "?"))?;
        let name = name_of(&named);
        let user = nix::unistd::geteuid().as_raw().cast_signed();
        // SAFETY: the argument is a number.
        unsafe { tun_set_owner(tap.as_raw_fd(), user) }
            .map_err(refused("give the tap device to its user", &name))?;
        // SAFETY: the argument is a number.
        unsafe { tun_set_persist(tap.as_raw_fd(), 1) }.map_err(refused("keep the tap device", &name))?;
        Ok(name)
    }

    /// Its descriptor: a packet with its header per read and write.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    fn attach(name: &str) -> Result<Self, TapError> {
        let refused = |action| {
            move |source: io::Error| match source.raw_os_error() {
                Some(libc::EBUSY) => TapError::InUse(name.to_owned()),
                _ => TapError::Request { action, name: name.to_owned(), source },
            }
        };
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(TUN)
            .map_err(refused("open /dev/net/tun"))?;
        let mut request = request(name);
        let wanted = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(wanted).unwrap_or_default();
        let fd = file.as_raw_fd();
        // SAFETY: the request is a valid ifreq that outlives the call; the kernel writes the
        // final name into it.
        unsafe { tun_set_iff(fd, &raw const request) }
            .map_err(|e| refused("attach to the tap device")(e.into()))?;
        // SAFETY: the length outlives the call, which only reads it.
        unsafe { tun_set_header_len(fd, &raw const HEADER_LEN) }
            .map_err(|e| refused("set the header length")(e.into()))?;
        // SAFETY: the argument is a number.
        unsafe { tun_set_offload(fd, OFFLOADS) }.map_err(|e| refused("set offloads")(e.into()))?;
        Ok(Self { file, name: name_of(&request) })
    }

    fn bring_up(&self) -> Result<(), TapError> {
        let socket = self.socket()?;
        let mut request = request(&self.name);
        // SAFETY: a valid ifreq that outlives the call, which fills in the flags.
        unsafe { get_flags(socket.as_raw_fd(), &raw mut request) }
            .map_err(|e| self.refused("read the flags")(e))?;
        // SAFETY: the call above has filled in this member.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let up = libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
        if flags & up != 0 {
            return Ok(());
        }
        request.ifr_ifru.ifru_flags = flags | up;
        // SAFETY: a valid ifreq that outlives the call, which only reads it.
        unsafe { set_flags(socket.as_raw_fd(), &raw const request) }
            .map_err(|e| self.refused("bring it up")(e))?;
        Ok(())
    }

    fn join_bridge(&self, bridge: &str) -> Result<(), TapError> {
        let socket = self.socket()?;
        let mut own = request(&self.name);
        // SAFETY: a valid ifreq that outlives the call, which fills in the index.
        unsafe { get_index(socket.as_raw_fd(), &raw mut own) }
            .map_err(|e| self.refused("read the index")(e))?;
        let mut request = request(bridge);
        // SAFETY: the call above has filled in this member.
        request.ifr_ifru.ifru_ifindex = unsafe { own.ifr_ifru.ifru_ifindex };
        // SAFETY: a valid ifreq that outlives the call, which only reads it.
        unsafe { bridge_add(socket.as_raw_fd(), &raw const request) }
            .map_err(|e| self.refused("add it to the bridge")(e))?;
        Ok(())
    }

    fn socket(&self) -> Result<OwnedFd, TapError> {
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|e| self.refused("open a socket")(e))
    }

    fn refused(&self, action: &'static str) -> impl FnOnce(nix::errno::Errno) -> TapError {
        let name = self.name.clone();
        move |e| TapError::Request { action, name, source: e.into() }
    }
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq is plain numbers, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

fn name_of(request: &libc::ifreq) -> String {
    let bytes: Vec<u8> =
        request.ifr_name.iter().map(|c| c.to_ne_bytes()[0]).take_while(|b| *b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_are_refused() {
        for name in ["", "a name", "a/b", "sixteen-bytes-xx", ".."] {
            assert!(matches!(Tap::open(name), Err(TapError::Name(_))), "{name}");
        }
    }

    #[test]
    fn absent_and_foreign_interfaces_are_named() {
        assert!(matches!(Tap::open("nosuch0"), Err(TapError::Absent(_))));
        if Path::new("/sys/class/net/lo").exists() {
            assert!(matches!(Tap::open("lo"), Err(TapError::OtherKind(_))));
        } else {
            println!("skipped: no loopback interface here");
        }
    }
}
