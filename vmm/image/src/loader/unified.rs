//! Unified kernel images: a kernel, its initrd and its command line in one EFI program.
//! Source: UAPI Group's specification; sections of a PE file, read by `object`.

use object::read::pe::PeFile64;
use object::{Object, ObjectSection};

/// What a unified kernel image holds.
pub(crate) struct Unified {
    pub(crate) kernel: Vec<u8>,
    pub(crate) initrd: Vec<u8>,
    pub(crate) command_line: String,
    /// `PRETTY_NAME` of its system; empty without.
    pub(crate) title: String,
    /// `uname -r` of its kernel; empty without.
    pub(crate) release: String,
}

impl Unified {
    /// Takes it apart.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file = PeFile64::parse(bytes).map_err(|e| format!("it is no EFI program: {e}"))?;
        let section = |name: &str| -> Option<Vec<u8>> {
            let section = file.section_by_name(name)?;
            let data = section.data().ok()?;
            // What lies behind the section's own size is padding of the file.
            let size = usize::try_from(section.size()).ok()?;
            Some(data.get(..size).unwrap_or(data).to_vec())
        };
        let kernel = section(".linux").ok_or("it has no section .linux: it is no unified kernel image")?;
        let text = |name| String::from_utf8_lossy(&section(name).unwrap_or_default()).into_owned();
        // Microcode comes first.
        let mut initrd = section(".ucode").unwrap_or_default();
        initrd.extend(section(".initrd").unwrap_or_default());
        let release = text(".uname");
        Ok(Self {
            kernel,
            initrd,
            command_line: words(&text(".cmdline")),
            title: pretty_name(&text(".osrel")),
            release: release.trim_end_matches('\0').trim().to_owned(),
        })
    }
}

/// One line: without zeroes at the end, breaks are spaces.
fn words(text: &str) -> String {
    text.trim_end_matches('\0').split_whitespace().collect::<Vec<_>>().join(" ")
}

fn pretty_name(text: &str) -> String {
    let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
}
