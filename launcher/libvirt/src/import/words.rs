//! How libvirt writes numbers, switches, sizes and lists of CPUs.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::Fault;
use super::source::{Part, quoted};

/// How many CPUs Linux can have on x86-64. Source: `NR_CPUS` with `MAXSMP`.
const CPUS: usize = 1 << 13;

impl Part<'_> {
    /// A number in an attribute.
    pub(super) fn number<T: FromStr>(&self, name: &'static str) -> Option<T> {
        let text = self.attribute(name)?;
        let number = text.trim().parse().ok();
        if number.is_none() {
            self.malformed(name, text, "number");
        }
        number
    }

    /// `on` and `off`, `yes` and `no`.
    pub(super) fn switch(&self, name: &'static str) -> Option<bool> {
        match self.attribute(name)? {
            "on" | "yes" => Some(true),
            "off" | "no" => Some(false),
            other => {
                self.malformed(name, other, "switch: on, off, yes or no");
                None
            }
        }
    }

    /// A whole number with a prefix for hexadecimal.
    pub(super) fn hexadecimal(&self, name: &'static str) -> Option<u32> {
        let text = self.attribute(name)?;
        let digits = text.trim();
        let number = match digits.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => digits.parse().ok(),
        };
        if number.is_none() {
            self.malformed(name, text, "number");
        }
        number
    }

    /// The size in an element's text, in bytes; kibibytes where it has no unit.
    pub(super) fn bytes(&self) -> Option<u64> {
        let unit = self.attribute("unit").unwrap_or("KiB");
        self.scaled(self.text(), unit)
    }

    /// The size in an attribute, with the unit of the element.
    pub(super) fn bytes_of(&self, name: &'static str) -> Option<u64> {
        let unit = self.attribute("unit").unwrap_or("KiB");
        self.scaled(self.attribute(name)?, unit)
    }

    fn scaled(&self, text: &str, unit: &str) -> Option<u64> {
        let Some(scale) = scale(unit) else {
            self.malformed("unit", unit, "unit of memory");
            return None;
        };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            self.malformed("", text, "size");
            return None;
        }
        let bytes = text.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
        if bytes.is_none() {
            let text = quoted(&format!("{text} {unit}"));
            self.fault(|path| Fault::TooLarge { path, text });
        }
        bytes
    }

    /// A list of CPUs.
    pub(super) fn cpus(&self, name: &'static str) -> Option<BTreeSet<u32>> {
        let text = self.attribute(name)?;
        let cpus = cpu_list(text);
        if cpus.is_none() {
            self.malformed(name, text, "list of CPUs, such as 0-3,^1");
        }
        cpus
    }

    fn malformed(&self, attribute: &str, text: &str, what: &'static str) {
        let text = format!("{attribute} {}", quoted(text)).trim_start().to_owned();
        self.fault(|path| Fault::Malformed { path, text, what });
    }
}

/// Bytes in a unit, whatever its case. Source: `virScaleInteger` of libvirt.
fn scale(unit: &str) -> Option<u64> {
    let unit = unit.trim().to_ascii_lowercase();
    if ["b", "byte", "bytes"].contains(&unit.as_str()) {
        return Some(1);
    }
    let mut chars = unit.chars();
    let power = u32::try_from("kmgtpe".find(chars.next()?)?).ok()? + 1;
    let base: u64 = match chars.as_str() {
        "" | "ib" => 1024,
        "b" => 1000,
        _ => return None,
    };
    base.checked_pow(power)
}

/// `0-3,^1,8`: items apply from left to right. Source: libvirt's "cpuset" syntax.
fn cpu_list(text: &str) -> Option<BTreeSet<u32>> {
    let number = |digits: &str| digits.trim().parse::<usize>().ok();
    let mut cpus = vec![false; CPUS];
    for item in text.split(',').map(str::trim) {
        if let Some(excepted) = item.strip_prefix('^') {
            *cpus.get_mut(number(excepted)?)? = false;
        } else {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last) = (number(first)?, number(last)?);
            // A range that ends before it begins has no slice, nor has one beyond the CPUs there can be.
            cpus.get_mut(first..last.checked_add(1)?).filter(|range| !range.is_empty())?.fill(true);
        }
    }
    Some((0..).zip(cpus).filter(|(_, is_in)| *is_in).map(|(cpu, _)| cpu).collect())
}

/// `0-3,8`.
pub(super) fn as_list(cpus: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*cpu) => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let texts: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_libvirt() {
        for (unit, bytes) in [
            ("b", 1),
            ("bytes", 1),
            ("KB", 1000),
            ("k", 1024),
            ("KiB", 1024),
            ("MB", 1_000_000),
            ("GiB", 1 << 30),
        ] {
            assert_eq!(scale(unit), Some(bytes), "{unit}");
        }
        assert_eq!(scale("E"), Some(1 << 60));
        for unit in ["", "x", "KiBs", "kilo", "ß"] {
            assert_eq!(scale(unit), None, "{unit}");
        }
    }

    #[test]
    fn lists_of_cpus_are_read_and_written() {
        for (text, list) in [("0-3,^1", "0,2-3"), ("8", "8"), ("1,0", "0-1"), ("^4,4-5", "4-5")] {
            assert_eq!(as_list(&cpu_list(text).unwrap()), list, "{text}");
        }
        for text in ["", "a", "3-1", "0-99999999", "-1", "1,,2", "^"] {
            assert_eq!(cpu_list(text), None, "{text}");
        }
    }
}
