//! What a client asks: the fields and options of its message that an answer depends on.
//!
//! Pure. Everything in it comes from the guest: nothing is indexed, every length is checked.

use std::net::Ipv4Addr;

/// Bytes before the options, without the cookie. Source: RFC 2131, section 2.
pub(crate) const FIXED_BYTES: usize = 236;
/// Source: RFC 2131, section 3.
pub(crate) const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// BOOTREQUEST.
const REQUEST: u8 = 1;
/// Ethernet: the type, and the length of its addresses. Source: RFC 1700.
pub(crate) const ETHERNET: [u8; 2] = [1, 6];
/// Set by a client that cannot take a unicast packet yet.
pub(crate) const BROADCAST_FLAG: u16 = 0x8000;

const PAD: u8 = 0;
const END: u8 = 255;

/// Codes of options. Source: RFC 2132.
const REQUESTED_ADDRESS: u8 = 50;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const PARAMETERS: u8 = 55;
const MAXIMUM_SIZE: u8 = 57;
const CLIENT: u8 = 61;

/// What kind of message a client sends. Source: RFC 2132, section 9.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Discover,
    Request,
    Decline,
    Release,
    Inform,
}

/// A client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) kind: Kind,
    pub(crate) transaction: [u8; 4],
    pub(crate) flags: u16,
    pub(crate) client_address: Ipv4Addr,
    pub(crate) relay: Ipv4Addr,
    pub(crate) mac: [u8; 6],
    pub(crate) requested: Option<Ipv4Addr>,
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) parameters: &'a [u8],
    pub(crate) maximum_size: Option<u16>,
    pub(crate) client: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// None where it is no DHCP message of an Ethernet client.
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = message.split_at_checked(FIXED_BYTES)?;
        let options = rest.strip_prefix(&COOKIE)?;
        if bytes::<1>(fixed, 0)? != [REQUEST] || bytes::<2>(fixed, 1)? != ETHERNET {
            return None;
        }
        let mut request = Self {
            kind: Kind::Decline,
            transaction: bytes(fixed, 4)?,
            flags: u16::from_be_bytes(bytes(fixed, 10)?),
            client_address: Ipv4Addr::from(bytes::<4>(fixed, 12)?),
            relay: Ipv4Addr::from(bytes::<4>(fixed, 24)?),
            mac: bytes(fixed, 28)?,
            requested: None,
            server: None,
            parameters: &[],
            maximum_size: None,
            client: None,
        };
        let mut kind = None;
        for (code, value) in Options(options) {
            match code {
                MESSAGE_TYPE => kind = kind.or(kind_of(value)),
                REQUESTED_ADDRESS => request.requested = address(value),
                SERVER => request.server = address(value),
                PARAMETERS => request.parameters = value,
                MAXIMUM_SIZE => request.maximum_size = value.try_into().ok().map(u16::from_be_bytes),
                CLIENT => request.client = Some(value),
                _ => {}
            }
        }
        request.kind = kind?;
        Some(request)
    }
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..)?.first_chunk().copied()
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

fn kind_of(value: &[u8]) -> Option<Kind> {
    match value {
        [1] => Some(Kind::Discover),
        [3] => Some(Kind::Request),
        [4] => Some(Kind::Decline),
        [7] => Some(Kind::Release),
        [8] => Some(Kind::Inform),
        _ => None,
    }
}

/// Code and value of each option, as far as they are whole.
#[derive(Clone, Debug)]
pub(crate) struct Options<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (code, rest) = self.0.split_first()?;
            match *code {
                PAD => self.0 = rest,
                END => return None,
                code => {
                    let (length, rest) = rest.split_first()?;
                    let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                    self.0 = rest;
                    return Some((code, value));
                }
            }
        }
    }
}
