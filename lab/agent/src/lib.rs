//! The protocol between a lab host's agent and the machine outside: numbered requests in frames.
//!
//! A frame is two lengths (4 bytes each, little endian), a head in JSON of the first length, and a
//! body of bytes of the second. Every answer carries the number of its request: one to a client that
//! went away is told from one to the next, whatever it was in the middle of.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest head, bytes: what is longer is a broken stream.
pub const LONGEST_HEAD: usize = 1 << 20;
/// Longest body, bytes.
pub const LONGEST_BODY: usize = 256 << 20;

/// What the lab asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its number.
    pub id: u64,
    /// What is asked.
    pub what: What,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// Run a program to its end; the body is its standard input.
    Run {
        /// Program and arguments.
        words: Vec<String>,
        /// Variables added to its environment.
        environment: Vec<(String, String)>,
        /// Milliseconds after which its process group is killed.
        limit_ms: u64,
    },
    /// Write the body to a file.
    Put {
        /// Path.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Read a file.
    Get {
        /// Path.
        path: String,
    },
    /// End the host. There is no answer.
    PowerOff,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Number of the request; 0 for the greeting.
    pub id: u64,
    /// The answer.
    pub what: Outcome,
}

/// How a request went, or goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The agent is ready.
    Ready,
    /// The program printed the body. More answers follow.
    Printed(Stream),
    /// The program ended.
    Ended {
        /// Exit code; absent when a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Whether it ran past its limit.
        timed_out: bool,
    },
    /// Done.
    Done,
    /// The body is the file's content.
    Content,
    /// It could not be done, and why.
    Failed(String),
}

/// Where a program prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
}

/// Writes a frame.
///
/// # Errors
/// When the stream cannot be written, or the frame is too long.
pub fn send<T: Serialize>(to: &mut impl Write, head: &T, body: &[u8]) -> io::Result<()> {
    let head = serde_json::to_vec(head)?;
    if head.len() > LONGEST_HEAD || body.len() > LONGEST_BODY {
        return Err(io::Error::other(format!("{} bytes are too many for one frame", body.len())));
    }
    let mut frame = Vec::with_capacity(8 + head.len() + body.len());
    for len in [head.len(), body.len()] {
        let len = u32::try_from(len).map_err(io::Error::other)?;
        frame.extend(len.to_le_bytes());
    }
    frame.extend(head);
    frame.extend(body);
    to.write_all(&frame)?;
    to.flush()
}

/// Reads a frame: its head and its body.
///
/// # Errors
/// When the stream ends, or holds no frame.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<(T, Vec<u8>)> {
    let head = length(from, LONGEST_HEAD)?;
    let body = length(from, LONGEST_BODY)?;
    let head = exactly(from, head)?;
    let body = exactly(from, body)?;
    Ok((serde_json::from_slice(&head)?, body))
}

fn length(from: &mut impl Read, longest: usize) -> io::Result<usize> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
    if len > longest {
        return Err(io::Error::other(format!("a frame of {len} bytes: the stream is broken")));
    }
    Ok(len)
}

fn exactly(from: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(len as u64).read_to_end(&mut bytes)?;
    if bytes.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip() {
        let request = Request { id: 7, what: What::Get { path: "/etc/hostname".into() } };
        let mut stream = Vec::new();
        send(&mut stream, &request, b"\0body\xff").unwrap();
        send(&mut stream, &request, b"").unwrap();
        let mut stream = stream.as_slice();
        assert_eq!(receive::<Request>(&mut stream).unwrap(), (request.clone(), b"\0body\xff".to_vec()));
        assert_eq!(receive::<Request>(&mut stream).unwrap(), (request, vec![]));
        assert!(receive::<Request>(&mut stream).is_err());
    }

    #[test]
    fn a_broken_stream_is_noticed() {
        for bytes in [&[0xff; 16][..], &[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'], &[2, 0, 0, 0, 9, 0, 0, 0, b'{']]
        {
            assert!(receive::<Request>(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
