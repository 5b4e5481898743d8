//! `cpu.realtime.mask`: which vCPUs, in libvirt's notation: `0-3,^1`.

/// A set of vCPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuMask(Vec<u32>);

/// Why a text is no mask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VcpuMaskError {
    /// An item is neither a number, a range nor an exception.
    #[error("{item:?} is not a vCPU (3), a range (0-3) or an exception (^1)")]
    Malformed {
        /// The item.
        item: String,
    },
    /// A range ends before it begins.
    #[error("The range {item} ends before it begins")]
    Backwards {
        /// The item.
        item: String,
    },
    /// There is no such vCPU.
    #[error("There is no vCPU {vcpu}: the guest has {vcpus}, from 0 to {}", vcpus.saturating_sub(1))]
    NoSuchVcpu {
        /// The number given.
        vcpu: u32,
        /// How many there are.
        vcpus: u32,
    },
    /// It names no vCPU.
    #[error("It selects no vCPU: exceptions take away from what comes before them, as in 0-3,^1")]
    Empty,
}

impl VcpuMask {
    /// Reads a mask for a guest of that many vCPUs. Items apply from left to right.
    ///
    /// # Errors
    /// What is wrong with it; libvirt would find out only when the guest starts.
    pub fn parse(text: &str, vcpus: u32) -> Result<Self, VcpuMaskError> {
        let mut set = std::collections::BTreeSet::new();
        for item in text.split(',').map(str::trim) {
            let malformed = || VcpuMaskError::Malformed { item: crate::node::shorten(item) };
            let number = |digits: &str| -> Result<u32, VcpuMaskError> {
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(malformed());
                }
                let vcpu = digits.parse().map_err(|_| malformed())?;
                if vcpu < vcpus { Ok(vcpu) } else { Err(VcpuMaskError::NoSuchVcpu { vcpu, vcpus }) }
            };
            if let Some(exception) = item.strip_prefix('^') {
                set.remove(&number(exception)?);
            } else if let Some((first, last)) = item.split_once('-') {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return Err(VcpuMaskError::Backwards { item: item.to_owned() });
                }
                set.extend(first..=last);
            } else {
                set.insert(number(item)?);
            }
        }
        if set.is_empty() { Err(VcpuMaskError::Empty) } else { Ok(Self(set.into_iter().collect())) }
    }

    /// The vCPUs, ascending.
    #[must_use]
    pub fn vcpus(&self) -> &[u32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn masks_are_ranges_numbers_and_exceptions() {
        for (text, vcpus) in
            [("0-3,^1", vec![0, 2, 3]), ("2", vec![2]), ("0, 2", vec![0, 2]), ("0-7,^3,3", (0..8).collect())]
        {
            assert_eq!(VcpuMask::parse(text, 8).unwrap().vcpus(), vcpus, "{text}");
        }
    }

    #[test]
    fn a_bad_mask_is_named() {
        let malformed = |item: &str| VcpuMaskError::Malformed { item: item.to_owned() };
        for (text, error) in [
            ("0-", malformed("0-")),
            ("a", malformed("a")),
            ("0,,1", malformed("")),
            ("^0-1", malformed("^0-1")),
            ("99999999999", malformed("99999999999")),
            ("3-1", VcpuMaskError::Backwards { item: "3-1".into() }),
            ("0-8", VcpuMaskError::NoSuchVcpu { vcpu: 8, vcpus: 8 }),
            ("^1", VcpuMaskError::Empty),
        ] {
            assert_eq!(VcpuMask::parse(text, 8), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_vcpu_is_beyond_the_guest(text in "[0-9,^ a-]{0,24}", vcpus in 0_u32..600) {
            if let Ok(mask) = VcpuMask::parse(&text, vcpus) {
                prop_assert!(mask.vcpus().iter().all(|vcpu| *vcpu < vcpus));
            }
        }
    }
}
