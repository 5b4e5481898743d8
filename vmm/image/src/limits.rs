//! The most of everything that is read from an image. What is larger is refused: no image that people use comes near.

/// Partitions.
pub(crate) const PARTITIONS: usize = 128;
/// Bytes of a configuration file.
pub(crate) const CONFIGURATION: u64 = 1 << 20;
/// Bytes of a kernel, or of an image that holds one.
pub(crate) const KERNEL: u64 = 128 << 20;
/// Bytes of all initrds together.
pub(crate) const INITRD: u64 = 512 << 20;
/// Names in a folder.
pub(crate) const NAMES: usize = 4096;
/// Boot entries.
pub(crate) const ENTRIES: usize = 256;
/// Bytes of a kernel command line.
pub(crate) const COMMAND_LINE: usize = 4096;
