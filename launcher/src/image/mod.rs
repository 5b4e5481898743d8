//! How a disk image boots, read by a process that can do nothing else.
//!
//! Everything in an image is the guest's, and file systems are the largest parsers there are. So a program of its
//! own, `pinion-image`, reads them: it has no privilege, no file, and no system call but reading and writing what
//! it was given; its memory and its time are bounded. It asks this process for bytes of the disk and hands over a
//! kernel, an initrd and a command line. What is wrong with an image can cost it its life, and nothing else.
//!
//! `protocol` is what the two say to each other, `reader` is that program, `process` starts it and answers it,
//! `kernel` does that for a guest at each boot.

mod kernel;
mod process;
mod protocol;
mod reader;
mod sandbox;

pub use kernel::DiskKernel;
pub use process::{ImageError, ReadLimits, inspect};
pub use reader::serve;
