//! The tap device: the host's end of the guest's interface.
//!
//! It is made by `TUNSETIFF` in the pod's namespace, since the kernel makes none by netlink. It is not persistent: it
//! is gone with its descriptor, however the agent or the launcher ends.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nlink::tuntap::{Error, Mode, TunTap};

use crate::error::NetworkError;

/// What the VMM's network device puts before each packet: a virtio header with `num_buffers`.
const HEADER_BYTES: i32 = 12;
/// None, until the guest has said what it can take.
const OFFLOADS: u32 = 0;

/// Makes a tap device as the VMM takes it: with virtio headers, without packet information, not blocking.
pub(crate) fn make(name: &str) -> Result<OwnedFd, NetworkError> {
    let refused = |source: io::Error| match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => NetworkError::TapInUse(name.to_owned()),
        _ => NetworkError::Tap { name: name.to_owned(), source },
    };
    let told = |error: Error| match error {
        Error::Io(source) | Error::Ioctl { source, .. } => refused(source),
        other => refused(io::Error::other(other)),
    };
    let tap =
        TunTap::builder().name(name).mode(Mode::Tap).no_pi(true).vnet_hdr(true).create().map_err(told)?;
    tap.set_vnet_hdr_size(HEADER_BYTES).map_err(told)?;
    tap.set_offload(OFFLOADS).map_err(told)?;
    let file = tap.into_file();
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| refused(e.into()))?;
    Ok(file.into())
}
