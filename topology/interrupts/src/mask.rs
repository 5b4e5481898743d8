//! CPU masks as `default_smp_affinity` has them: hexadecimal, in groups of 32 CPUs, highest first.
//!
//! Called where affinities are read and written. The kernel accepts lists
//! everywhere else; it must never be used for those.

use std::fmt::Write as _;

use pinion_machine::{CpuId, CpuSet};

const GROUP: u32 = 32;
/// As many groups as a [`CpuSet`] has room for.
const MAX_GROUPS: usize = 2048;

/// Reads `ffff,0000000f`; `None` where it is no mask.
#[must_use]
pub fn parse(text: &str) -> Option<CpuSet> {
    let groups: Vec<&str> = text.trim().split(',').collect();
    if groups.len() > MAX_GROUPS {
        return None;
    }
    let mut set = CpuSet::new();
    for (group, base) in groups.iter().rev().zip((0u32..).step_by(GROUP as usize)) {
        // from_str_radix would take a sign.
        if group.is_empty() || group.len() > 8 || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let word = u32::from_str_radix(group, 16).ok()?;
        set.extend((0..GROUP).filter(|bit| word >> bit & 1 == 1).map(|bit| CpuId(base + bit)));
    }
    Some(set)
}

/// Writes what [`parse`] reads, in as few groups as the set needs.
#[must_use]
pub fn format(set: &CpuSet) -> String {
    let mut words: Vec<u32> = Vec::new();
    for cpu in set.iter() {
        let group = (cpu.0 / GROUP) as usize;
        if words.len() <= group {
            words.resize(group + 1, 0);
        }
        if let Some(word) = words.get_mut(group) {
            *word |= 1 << (cpu.0 % GROUP);
        }
    }
    let mut words = words.iter().rev();
    let mut text = format!("{:x}", words.next().copied().unwrap_or(0));
    for word in words {
        // Writing to a String cannot fail.
        let _ = write!(text, ",{word:08x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn masks_of_the_kernel_are_read() {
        for (mask, list) in [
            ("f\n", "0-3"),
            ("ff,ffffffff", "0-39"),
            ("80000000,00000000,00000001", "0,95"),
            ("00000000,00000003", "0-1"),
            ("0", ""),
        ] {
            assert_eq!(parse(mask).map(|s| s.to_string()).as_deref(), Some(list), "{mask}");
        }
        let all: CpuSet = "0-1023".parse().unwrap();
        assert_eq!(parse(&["ffffffff"; 32].join(",")), Some(all.clone()));
        assert_eq!(format(&all), ["ffffffff"; 32].join(","));
        assert_eq!(format(&CpuSet::new()), "0");
    }

    #[test]
    fn other_text_is_no_mask() {
        for text in ["", "x", "1,,2", "+1", "123456789", "0-3"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse(&["1"; 2049].join(",")), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9a-fx,+\n-]{0,100}") {
            let _ = parse(&text);
        }

        #[test]
        fn masks_round_trip(cpus in proptest::collection::btree_set(0u32..1024, 0..40)) {
            let set: CpuSet = cpus.into_iter().map(CpuId).collect();
            prop_assert_eq!(parse(&format(&set)), Some(set));
        }
    }
}
