//! The host's end of a network device: packets with a virtio header in front.

#![expect(unsafe_code, reason = "the offloads of a tap are set by an ioctl without a safe wrapper")]

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Packets that the guest takes unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Without their checksum.
    pub checksum: bool,
    /// TCP over IPv4, not yet cut into segments.
    pub tso4: bool,
    /// TCP over IPv6, not yet cut into segments.
    pub tso6: bool,
    /// Such segments with ECN.
    pub ecn: bool,
}

/// Sends and receives whole packets, each behind a virtio header of 12 bytes, and never
/// blocks. The descriptor is readable when there is a packet, writable when there is room.
pub trait PacketPort: AsRawFd + Send + fmt::Debug {
    /// Takes one packet; what does not fit is lost.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    fn receive(&mut self, packet: &mut [u8]) -> io::Result<usize>;

    /// Sends one packet.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room now.
    fn send(&mut self, packet: &[u8]) -> io::Result<()>;

    /// Says what received packets may be like from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn set_offloads(&mut self, offloads: Offloads) -> io::Result<()>;
}

const TUN_F_CSUM: u32 = 1;
const TUN_F_TSO4: u32 = 2;
const TUN_F_TSO6: u32 = 4;
const TUN_F_TSO_ECN: u32 = 8;

nix::ioctl_write_int_bad!(tun_set_offload, nix::request_code_write!(b'T', 208, size_of::<u32>()));

/// A tap device. It must be non-blocking, with virtio headers of 12 bytes and without packet
/// information.
#[derive(Debug)]
pub struct TapPort {
    file: File,
}

impl TapPort {
    /// Takes over the descriptor of a tap.
    #[must_use]
    pub fn new(tap: OwnedFd) -> Self {
        Self { file: File::from(tap) }
    }
}

impl AsRawFd for TapPort {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl PacketPort for TapPort {
    fn receive(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        self.file.read(packet)
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.file.write(packet).map(drop)
    }

    fn set_offloads(&mut self, offloads: Offloads) -> io::Result<()> {
        let bit = |wanted, bit| if wanted { bit } else { 0 };
        let flags = bit(offloads.checksum, TUN_F_CSUM)
            | bit(offloads.tso4, TUN_F_TSO4)
            | bit(offloads.tso6, TUN_F_TSO6)
            | bit(offloads.ecn, TUN_F_TSO_ECN);
        let flags = i32::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the descriptor is open and the argument is a plain number.
        unsafe { tun_set_offload(self.file.as_raw_fd(), flags) }?;
        Ok(())
    }
}
