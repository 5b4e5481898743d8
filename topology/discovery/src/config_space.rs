//! What a PCI function's configuration space says of itself: interrupt vectors, ACS, ATS.
//!
//! Called for each function while a tree is read, with the bytes of its `config` file. The
//! bytes come from a device: whatever they are, the walk ends and reads nothing beyond them.

use crate::tree::Tree;

/// All there is for PCI Express.
const LENGTH: u64 = 4096;
/// A capability is at least four bytes long, so that there can be no more in 256.
const MAX_CAPABILITIES: usize = 48;
/// As above, in the extended space.
const MAX_EXTENDED: usize = 960;
/// Where the extended space starts.
const EXTENDED: usize = 0x100;

/// What was found; `None` without the capability, or where it was not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConfigSpace {
    /// MSI vectors that the function can ask for.
    pub(crate) msi_vectors: Option<u16>,
    /// MSI-X vectors that it has.
    pub(crate) msix_vectors: Option<u16>,
    /// Whether any part of Access Control Services is on.
    pub(crate) acs: Option<bool>,
    /// Whether Address Translation Services are on.
    pub(crate) ats: Option<bool>,
}

impl ConfigSpace {
    /// That of the function with this folder; without root the kernel tells the first 64
    /// bytes only, and so does this nothing.
    pub(crate) fn of(tree: &Tree, folder: &str) -> Self {
        tree.bytes(&format!("{folder}/config"), LENGTH).map(|b| Self::parse(&b)).unwrap_or_default()
    }

    fn parse(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        found.standard(bytes);
        found.extended(bytes);
        found
    }

    fn standard(&mut self, bytes: &[u8]) {
        const STATUS: usize = 0x06;
        const HAS_LIST: u16 = 1 << 4;
        const HEADER_TYPE: usize = 0x0e;
        const CARDBUS: u8 = 2;
        const POINTER: usize = 0x34;
        let listed = word(bytes, STATUS).is_some_and(|status| status & HAS_LIST != 0);
        if !listed || byte(bytes, HEADER_TYPE).is_none_or(|t| t & 0x7f == CARDBUS) {
            return;
        }
        let mut next = byte(bytes, POINTER);
        for _ in 0..MAX_CAPABILITIES {
            let Some(at) = next.map(|n| usize::from(n & 0xfc)).filter(|at| *at >= 0x40) else { return };
            let control = word(bytes, at + 2);
            match byte(bytes, at) {
                Some(0x05) => self.msi_vectors = control.map(|c| 1 << ((c >> 1) & 7).min(5)),
                Some(0x11) => self.msix_vectors = control.map(|c| (c & 0x7ff) + 1),
                _ => {}
            }
            next = byte(bytes, at + 1);
        }
    }

    fn extended(&mut self, bytes: &[u8]) {
        let mut at = EXTENDED;
        for _ in 0..MAX_EXTENDED {
            let header = (word(bytes, at), word(bytes, at + 2));
            let (Some(id), Some(version_and_next)) = header else { return };
            if (id, version_and_next) == (0xffff, 0xffff) {
                return;
            }
            let control = word(bytes, at + 6);
            match id {
                0x0d => self.acs = control.map(|c| c != 0),
                0x0f => self.ats = control.map(|c| c & (1 << 15) != 0),
                _ => {}
            }
            at = usize::from(version_and_next >> 4) & 0xffc;
            if at < EXTENDED {
                return;
            }
        }
    }
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        for (at, part) in parts {
            bytes[*at..at + part.len()].copy_from_slice(part);
        }
        bytes
    }

    #[test]
    fn both_lists_are_walked() {
        let bytes = space(&[
            (0x06, &[0x10, 0]),
            (0x34, &[0x50]),
            (0x50, &[0x05, 0x72, 0x8a, 0x00]),
            (0x70, &[0x11, 0x00, 0x3f, 0x80]),
            (0x100, &[0x01, 0x00, 0x01, 0x20]),
            (0x200, &[0x0d, 0x00, 0x01, 0x30, 0x1f, 0x00, 0x1d, 0x00]),
            (0x300, &[0x0f, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x80]),
        ]);
        let all =
            ConfigSpace { msi_vectors: Some(32), msix_vectors: Some(64), acs: Some(true), ats: Some(true) };
        assert_eq!(ConfigSpace::parse(&bytes), all);
        assert_eq!(ConfigSpace::parse(&bytes[..64]), ConfigSpace::default(), "what is told without root");
        assert_eq!(ConfigSpace::parse(&bytes[..256]), ConfigSpace { acs: None, ats: None, ..all });
    }

    #[test]
    fn what_is_off_is_known_to_be_off() {
        let bytes = space(&[
            (0x100, &[0x0d, 0x00, 0x01, 0x20, 0x1f, 0x00, 0x00, 0x00]),
            (0x200, &[0x0f, 0x00, 0x01, 0x00, 0x00, 0x00, 0x1f, 0x00]),
        ]);
        let found = ConfigSpace::parse(&bytes);
        assert_eq!((found.acs, found.ats), (Some(false), Some(false)));
        assert_eq!((found.msi_vectors, found.msix_vectors), (None, None));
    }

    #[test]
    fn rings_and_sleeping_devices_come_to_an_end() {
        let ring = space(&[
            (0x06, &[0x10, 0]),
            (0x34, &[0x40]),
            (0x40, &[0x09, 0x40]),
            (0x100, &[0x01, 0x00, 0x01, 0x10]),
        ]);
        assert_eq!(ConfigSpace::parse(&ring), ConfigSpace::default());
        assert_eq!(ConfigSpace::parse(&[0xff; 4096]), ConfigSpace::default());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(
            mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..4200),
            linked in proptest::bool::ANY,
        ) {
            if let (true, Some(status)) = (linked, bytes.get_mut(6)) {
                *status |= 0x10;
            }
            let found = ConfigSpace::parse(&bytes);
            proptest::prop_assert!(found.msi_vectors.is_none_or(|n| n.is_power_of_two() && n <= 32));
            proptest::prop_assert!(found.msix_vectors.is_none_or(|n| (1..=2048).contains(&n)));
        }
    }
}
