//! Which answer a client's message gets.
//!
//! Pure. Only the guest's own MAC address is answered, and only with what its lease says: there is nothing here that a
//! guest could use up.

use std::net::Ipv4Addr;

use crate::lease::Lease;
use crate::options::Writer;
use crate::request::{BROADCAST_FLAG, COOKIE, ETHERNET, FIXED_BYTES, Kind, Request};

/// BOOTREPLY.
const REPLY: u8 = 2;
/// What every client takes: 576 bytes, less the headers of IP and UDP. Source: RFC 2131, section 2.
const SMALLEST_ROOM: usize = 548;
/// What fits an Ethernet frame of any network.
const LARGEST_ROOM: usize = 1472;
const HEADERS: usize = 28;
/// Source: RFC 1542, section 2.1.
const SHORTEST: usize = 300;
/// Options of the server itself. Source: RFC 2132.
const LEASE_TIME: u8 = 51;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const CLIENT: u8 = 61;
const INFINITE: [u8; 4] = [0xff; 4];

/// An answer, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    /// The guest's own address, or everyone on the guest's link.
    pub(crate) to: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Offer,
    Acknowledge,
    /// For a client that has its address already. Source: RFC 2131, section 4.3.5.
    Inform,
    Refuse,
}

/// The answer to a client's message: none where it is not this guest's, not for this server, or needs none.
#[must_use]
pub fn answer(request: &[u8], lease: &Lease) -> Option<Vec<u8>> {
    reply(request, lease).map(|reply| reply.bytes)
}

pub(crate) fn reply(message: &[u8], lease: &Lease) -> Option<Reply> {
    let request = Request::parse(message)?;
    // A relay's address would be where an answer goes to: there is no relay between a guest and its tap.
    if request.mac != lease.mac.0 || !request.relay.is_unspecified() {
        return None;
    }
    let verdict = verdict(&request, lease)?;
    let has_address = request.client_address == lease.address && request.flags & BROADCAST_FLAG == 0;
    let to = match verdict {
        Verdict::Acknowledge | Verdict::Inform if has_address => lease.address,
        _ => Ipv4Addr::BROADCAST,
    };
    Some(Reply { bytes: encode(&request, lease, verdict), to })
}

/// Source: RFC 2131, sections 4.3.1 to 4.3.5.
fn verdict(request: &Request<'_>, lease: &Lease) -> Option<Verdict> {
    let judged = |address: Ipv4Addr| {
        if address == lease.address { Verdict::Acknowledge } else { Verdict::Refuse }
    };
    match request.kind {
        Kind::Discover => Some(Verdict::Offer),
        // It has taken another server's offer.
        Kind::Request if request.server.is_some_and(|server| server != lease.server) => None,
        Kind::Request => match (request.requested, request.client_address) {
            (Some(address), _) => Some(judged(address)),
            (None, Ipv4Addr::UNSPECIFIED) => None,
            (None, address) => Some(judged(address)),
        },
        Kind::Inform if request.client_address == lease.address => Some(Verdict::Inform),
        // The address stays the guest's, whatever it thinks of it.
        Kind::Inform | Kind::Decline | Kind::Release => None,
    }
}

fn encode(request: &Request<'_>, lease: &Lease, verdict: Verdict) -> Vec<u8> {
    let (kind, client_address, address) = match verdict {
        Verdict::Offer => (2, Ipv4Addr::UNSPECIFIED, lease.address),
        Verdict::Acknowledge => (5, request.client_address, lease.address),
        Verdict::Inform => (5, request.client_address, Ipv4Addr::UNSPECIFIED),
        Verdict::Refuse => (6, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED),
    };
    let mut bytes = Vec::with_capacity(SMALLEST_ROOM);
    bytes.push(REPLY);
    bytes.extend(ETHERNET);
    bytes.push(0);
    bytes.extend(request.transaction);
    bytes.extend([0, 0]);
    bytes.extend(request.flags.to_be_bytes());
    bytes.extend(client_address.octets());
    bytes.extend(address.octets());
    bytes.extend([0; 8]);
    bytes.extend(lease.mac.0);
    bytes.resize(FIXED_BYTES, 0);
    bytes.extend(COOKIE);
    let room = room(request).saturating_sub(bytes.len());
    bytes.extend(options(request, lease, verdict, kind, room));
    bytes.resize(bytes.len().max(SHORTEST), 0);
    bytes
}

fn room(request: &Request<'_>) -> usize {
    let said = request.maximum_size.map_or(0, usize::from).saturating_sub(HEADERS);
    said.clamp(SMALLEST_ROOM, LARGEST_ROOM)
}

/// What every answer has, then what the client asks for, in its order, then the rest.
fn options(request: &Request<'_>, lease: &Lease, verdict: Verdict, kind: u8, room: usize) -> Vec<u8> {
    let mut writer = Writer::new(room);
    writer.put(MESSAGE_TYPE, &[kind]);
    writer.put(SERVER, &lease.server.octets());
    // Source: RFC 6842.
    writer.put(CLIENT, request.client.unwrap_or_default());
    if verdict == Verdict::Refuse {
        return writer.end();
    }
    if verdict != Verdict::Inform {
        writer.put(LEASE_TIME, &INFINITE);
    }
    let offered = lease.options();
    for wanted in request.parameters {
        for (code, value) in offered.iter().filter(|(code, _)| code == wanted) {
            writer.put(*code, value);
        }
    }
    for (code, value) in &offered {
        writer.put(*code, value);
    }
    writer.end()
}
