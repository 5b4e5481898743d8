//! The protocol between the lab and its agent: numbered requests in frames.
//!
//! A frame is the length of its body (4 bytes, little endian), then the body in JSON. Every answer
//! carries the number of its request, so that answers to a client that went away are told apart
//! from those to the next.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest body, bytes: what is longer is a broken stream.
pub const LONGEST: usize = 64 << 20;

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
    /// Run a program to its end.
    Run {
        /// Program and arguments.
        words: Vec<String>,
        /// Standard input.
        input: Vec<u8>,
        /// Milliseconds after which its process group is killed.
        limit_ms: u64,
    },
    /// Write a file.
    Put {
        /// Path.
        path: String,
        /// Content.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
    /// Read a file.
    Get {
        /// Path.
        path: String,
    },
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Number of the request; 0 for the greeting.
    pub id: u64,
    /// The answer.
    pub what: Outcome,
}

/// How a request went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The agent is ready.
    Ready,
    /// The program ended.
    Ended {
        /// Exit code; absent when a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Whether it ran past its limit.
        timed_out: bool,
        /// Standard output.
        output: Vec<u8>,
        /// Standard error.
        errors: Vec<u8>,
    },
    /// Done.
    Done,
    /// The file's content.
    Content(Vec<u8>),
    /// It could not be done, and why.
    Failed(String),
}

/// Writes a frame.
///
/// # Errors
/// When the stream cannot be written.
pub fn send<T: Serialize>(to: &mut impl Write, body: &T) -> io::Result<()> {
    let body = serde_json::to_vec(body)?;
    let len = u32::try_from(body.len()).map_err(|_| io::Error::other("frame too long"))?;
    to.write_all(&len.to_le_bytes())?;
    to.write_all(&body)?;
    to.flush()
}

/// Reads a frame.
///
/// # Errors
/// When the stream ends, or holds no frame.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
    if len > LONGEST {
        return Err(io::Error::other(format!("a frame of {len} bytes: the stream is broken")));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip() {
        let request = Request { id: 7, what: What::Get { path: "/etc/hostname".into() } };
        let mut stream = Vec::new();
        send(&mut stream, &request).unwrap();
        send(&mut stream, &request).unwrap();
        let mut stream = stream.as_slice();
        assert_eq!(receive::<Request>(&mut stream).unwrap(), request);
        assert_eq!(receive::<Request>(&mut stream).unwrap(), request);
        assert!(receive::<Request>(&mut stream).is_err());
    }

    #[test]
    fn a_broken_stream_is_noticed() {
        assert!(receive::<Request>(&mut [0xff; 8].as_slice()).is_err());
        assert!(receive::<Request>(&mut [2, 0, 0, 0, b'{', b'}'].as_slice()).is_err());
    }
}
