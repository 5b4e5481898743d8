//! The options of an answer, in the room that the client has for them.
//!
//! Pure. What matters more comes first; what has no room any more is left out whole.

use std::net::Ipv4Addr;

/// Longest value of one option; longer ones are split. Source: RFC 3396.
const LONGEST: usize = 255;
const END: u8 = 255;

/// Options being written.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    room: usize,
    written: Vec<u8>,
}

impl Writer {
    /// For options that take at most `room` bytes, with their end.
    pub(crate) fn new(room: usize) -> Self {
        Self { bytes: Vec::new(), room: room.saturating_sub(1), written: Vec::new() }
    }

    /// Writes an option, unless it is empty, was written before, or does not fit.
    pub(crate) fn put(&mut self, code: u8, value: &[u8]) {
        let size = value.len().saturating_add(value.len().div_ceil(LONGEST).saturating_mul(2));
        let fits = self.bytes.len().saturating_add(size) <= self.room;
        if value.is_empty() || !fits || self.written.contains(&code) {
            return;
        }
        self.written.push(code);
        for part in value.chunks(LONGEST) {
            let length = u8::try_from(part.len()).unwrap_or(u8::MAX);
            self.bytes.extend([code, length]);
            self.bytes.extend(part);
        }
    }

    /// All that was written, with the end of options.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.push(END);
        self.bytes
    }
}

/// A list of addresses.
pub(crate) fn addresses(list: &[Ipv4Addr]) -> Vec<u8> {
    list.iter().flat_map(Ipv4Addr::octets).collect()
}

/// Domain names, without compression. Source: RFC 1035, section 3.1.
pub(crate) fn domains(list: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for domain in list {
        for label in domain.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
    }
    bytes
}

/// The mask of a prefix.
pub(crate) fn mask(prefix: u8) -> Ipv4Addr {
    let host_bits = 32_u32.saturating_sub(u32::from(prefix));
    Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
}
