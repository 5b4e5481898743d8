//! What the config space of a host function holds: found once, when it is opened.
//!
//! Devices are hardware, and hardware is hostile too: every walk is bounded.

use std::collections::BTreeMap;
use std::io;

use vmm_pci::BarIndex;

use crate::host::{Area, HostFunction, Region};

const STATUS: u64 = 0x06;
const STATUS_CAPABILITIES: u16 = 0x10;
const FIRST: u64 = 0x34;
const MSI: u8 = 0x05;
const MSIX: u8 = 0x11;
const EXTENDED: u64 = 0x100;
/// Extended capabilities that a guest must not see: alternative routing ids, SR-IOV, resizable
/// BARs of both kinds, and the multi-root kind. What they change belongs to the host.
const HIDDEN: [u16; 5] = [0x0e, 0x10, 0x11, 0x15, 0x24];
/// As many as fit into 4 KiB.
const MOST: usize = 960;
/// Entries of the MSI-X table, and bytes of each.
const ENTRY: u64 = 16;

/// The MSI capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MsiCapability {
    /// Where it starts.
    pub(crate) at: u16,
    /// Whether addresses have 64 bits.
    pub(crate) wide: bool,
}

/// The MSI-X capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MsixCapability {
    /// Where it starts.
    pub(crate) at: u16,
    /// Vectors.
    pub(crate) vectors: u16,
    /// The table.
    pub(crate) table: (BarIndex, Area),
    /// The pending bits.
    pub(crate) pending: (BarIndex, Area),
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) msi: Option<MsiCapability>,
    pub(crate) msix: Option<MsixCapability>,
    /// First bytes of extended capabilities that are hidden, each with its end.
    pub(crate) hidden: BTreeMap<u16, u16>,
}

impl Capabilities {
    /// Reads them all.
    ///
    /// # Errors
    /// When the device does not answer.
    pub(crate) fn read(host: &dyn HostFunction) -> io::Result<Self> {
        let mut found = Self::default();
        if word(host, STATUS)? & STATUS_CAPABILITIES != 0 {
            found.standard(host)?;
        }
        if host.config_bytes() > EXTENDED {
            found.extended(host)?;
        }
        Ok(found)
    }

    fn standard(&mut self, host: &dyn HostFunction) -> io::Result<()> {
        let mut at = word(host, FIRST)? & 0xfc;
        for _ in 0..MOST {
            if at < 0x40 {
                break;
            }
            let [id, next] = word(host, at.into())?.to_le_bytes();
            match id {
                MSI => {
                    let wide = word(host, u64::from(at) + 2)? & 0x80 != 0;
                    self.msi.get_or_insert(MsiCapability { at, wide });
                }
                MSIX => self.msix = msix(host, at)?,
                _ => {}
            }
            let next = u16::from(next) & 0xfc;
            if next == at {
                break;
            }
            at = next;
        }
        Ok(())
    }

    fn extended(&mut self, host: &dyn HostFunction) -> io::Result<()> {
        let mut starts = Vec::new();
        let mut at = 0x100;
        for _ in 0..MOST {
            let header = dword(host, at.into())?;
            if header == 0 || header == u32::MAX {
                break;
            }
            let [a, b, c, d] = header.to_le_bytes();
            starts.push((at, u16::from_le_bytes([a, b])));
            let next = u16::from_le_bytes([c, d]) >> 4 & 0xffc;
            if next < 0x100 || starts.iter().any(|(start, _)| *start == next) {
                break;
            }
            at = next;
        }
        starts.sort_unstable();
        let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([0x1000]);
        self.hidden = starts
            .iter()
            .zip(ends)
            .filter(|((_, id), _)| HIDDEN.contains(id))
            .map(|((at, _), end)| (*at, end))
            .collect();
        Ok(())
    }

    /// Whether a byte of config space belongs to a capability that is hidden; its start if so.
    pub(crate) fn hidden_at(&self, offset: u16) -> Option<u16> {
        let (start, end) = self.hidden.range(..=offset).next_back()?;
        (offset < *end).then_some(*start)
    }
}

/// `None` where the table is said to be where no BAR is.
fn msix(host: &dyn HostFunction, at: u16) -> io::Result<Option<MsixCapability>> {
    let vectors = (word(host, u64::from(at) + 2)? & 0x7ff) + 1;
    let place = |dword: u32, bytes: u64| {
        let bar = u8::try_from(dword & 7).ok().and_then(BarIndex::new)?;
        Some((bar, Area { offset: u64::from(dword & !7), bytes }))
    };
    let table = place(dword(host, u64::from(at) + 4)?, u64::from(vectors) * ENTRY);
    let pending = place(dword(host, u64::from(at) + 8)?, u64::from(vectors).div_ceil(64) * 8);
    let bars = host.bars();
    let fits = |(bar, area): &(BarIndex, Area)| {
        bars.get(usize::from(bar.get())).is_some_and(|b| area.end() <= b.bytes)
    };
    let both = table.filter(fits).zip(pending.filter(fits));
    Ok(both.map(|(table, pending)| MsixCapability { at, vectors, table, pending }))
}

fn word(host: &dyn HostFunction, at: u64) -> io::Result<u16> {
    let mut bytes = [0; 2];
    host.read(Region::Config, at, &mut bytes)?;
    Ok(u16::from_le_bytes(bytes))
}

/// A register of config space.
pub(crate) fn dword(host: &dyn HostFunction, at: u64) -> io::Result<u32> {
    let mut bytes = [0; 4];
    host.read(Region::Config, at, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
