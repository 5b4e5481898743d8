//! What the process that reads images and the one that has the disk say to each other, over a Unix socket.
//!
//! The host speaks first: a [`Hello`]. Then the reader asks, and the host answers each question before the next; the
//! last is [`Question::Done`]. Numbers are little-endian.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use vmm_image::ImageReport;

/// Bytes that are asked for at once, at most.
pub(super) const MOST_AT_ONCE: u32 = 1 << 20;
/// Bytes of an answer, at most.
const LONGEST_ANSWER: u32 = 8 << 20;

const READ: u8 = 1;
const DONE: u8 = 2;
const FOUND: u8 = 0;
const FAILED: u8 = 1;

/// What is to be done with which disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// Bytes of the disk.
    pub(super) size: u64,
    /// Whether the kernel is wanted, too.
    pub(super) boot: bool,
}

/// What the reader wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Bytes of the disk.
    Read { offset: u64, length: u32 },
    /// Nothing more: what it found is in here.
    Done(Vec<u8>),
}

/// What the reader found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Answer {
    /// What is on the disk; absent where not even its partitions can be read.
    pub(super) report: Option<ImageReport>,
    /// Kernel command line, where a kernel was wanted and has been written.
    pub(super) command_line: Option<String>,
    /// Why it does not boot: a word, and a sentence.
    pub(super) refusal: Option<(String, String)>,
}

impl Hello {
    pub(super) fn write(self, to: &mut impl Write) -> io::Result<()> {
        let mut bytes = self.size.to_le_bytes().to_vec();
        bytes.push(u8::from(self.boot));
        to.write_all(&bytes)
    }

    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        let (size, boot) = (u64::from_le_bytes(bytes(from)?), bytes::<1>(from)?);
        Ok(Self { size, boot: boot == [1] })
    }
}

impl Question {
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Read { offset, length } => {
                let mut message = vec![READ];
                message.extend(offset.to_le_bytes());
                message.extend(length.to_le_bytes());
                to.write_all(&message)
            }
            Self::Done(answer) => {
                let length = u32::try_from(answer.len()).map_err(|_| invalid("the answer is too long"))?;
                to.write_all(&[DONE])?;
                to.write_all(&length.to_le_bytes())?;
                to.write_all(answer)
            }
        }
    }

    /// The reader may be anybody's by now: lengths are bounded.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        match bytes::<1>(from)? {
            [READ] => {
                let (offset, length) = (u64::from_le_bytes(bytes(from)?), u32::from_le_bytes(bytes(from)?));
                if length > MOST_AT_ONCE {
                    return Err(invalid("it asks for too much at once"));
                }
                Ok(Self::Read { offset, length })
            }
            [DONE] => {
                let length = u32::from_le_bytes(bytes(from)?);
                if length > LONGEST_ANSWER {
                    return Err(invalid("its answer is too long"));
                }
                let mut answer = vec![0; usize::try_from(length).unwrap_or(0)];
                from.read_exact(&mut answer)?;
                Ok(Self::Done(answer))
            }
            _ => Err(invalid("it says what nobody understands")),
        }
    }
}

/// Answers a question for bytes.
pub(super) fn write_bytes(to: &mut impl Write, bytes: Option<&[u8]>) -> io::Result<()> {
    match bytes {
        Some(bytes) => {
            to.write_all(&[FOUND])?;
            to.write_all(bytes)
        }
        None => to.write_all(&[FAILED]),
    }
}

/// Reads the answer to a question for bytes.
pub(super) fn read_bytes(from: &mut impl Read, into: &mut [u8]) -> io::Result<()> {
    match bytes::<1>(from)? {
        [FOUND] => from.read_exact(into),
        _ => Err(io::Error::other("the disk cannot be read there")),
    }
}

fn bytes<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for question in [Question::Read { offset: 1 << 40, length: 4096 }, Question::Done(b"{}".to_vec())] {
            let mut bytes = Vec::new();
            question.write(&mut bytes).unwrap();
            assert_eq!(Question::read(&mut bytes.as_slice()).unwrap(), question);
        }
        let mut bytes = Vec::new();
        let hello = Hello { size: 3 << 30, boot: true };
        hello.write(&mut bytes).unwrap();
        assert_eq!(Hello::read(&mut bytes.as_slice()).unwrap(), hello);
    }

    #[test]
    fn a_reader_that_went_wrong_gets_no_memory_and_no_answer() {
        let huge = [&[READ][..], &[0; 8], &u32::MAX.to_le_bytes()].concat();
        let long = [&[DONE][..], &u32::MAX.to_le_bytes()].concat();
        for bytes in [huge, long, vec![9], vec![], vec![READ, 1], vec![DONE, 9, 0, 0, 0, 1]] {
            assert!(Question::read(&mut bytes.as_slice()).is_err(), "{bytes:?}");
        }
    }
}
