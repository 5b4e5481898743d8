//! The DHCP server's socket.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::sockopt::{BindToDevice, Broadcast};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket};

use crate::error::NetworkError;

/// Where clients send to. Source: RFC 2131, section 4.1.
const SERVER_PORT: u16 = 67;

/// A socket that hears and speaks on one interface only, whoever has it.
pub(crate) fn bound_to(device: &str) -> Result<UdpSocket, NetworkError> {
    let make = || -> io::Result<UdpSocket> {
        let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, BindToDevice, &OsString::from(device))?;
        setsockopt(&fd, Broadcast, &true)?;
        let socket = UdpSocket::from(fd);
        let any = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER_PORT));
        bind(socket.as_raw_fd(), &any)?;
        Ok(socket)
    };
    make().map_err(|source| NetworkError::Socket { device: device.to_owned(), source })
}
