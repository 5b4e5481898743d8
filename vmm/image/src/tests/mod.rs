//! Whole images: what is found on them, and that no damage to them does harm.

#![expect(clippy::cast_possible_truncation, reason = "numbers of tests are small")]

mod grub;
mod images;
mod loaders;

use crate::fake::{FakeFiles, examine};
use crate::{Examined, PartitionKind};

/// A root file system alone on its disk.
fn root(files: &[(&str, &[u8])]) -> Examined {
    examine(vec![(PartitionKind::Data, FakeFiles::new(files).labelled("root"))])
}

/// Kernel, initrd and command line as text.
fn boot(examined: &Examined) -> Result<[String; 3], String> {
    let (mut kernel, mut initrd) = (Vec::new(), Vec::new());
    let line = examined.boot(&mut kernel, &mut initrd).map_err(|e| format!("{}: {e}", e.reason()))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok([text(kernel), text(initrd), line])
}
