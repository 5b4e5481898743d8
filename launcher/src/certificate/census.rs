//! Counts the pages of address ranges by host node, from `/proc/PID/numa_maps`.
//!
//! Pure parsing of the kernel's text, which is treated as hostile. Addresses are
//! those of the process that was read.

use std::collections::BTreeMap;

use pinion_machine::{NodeId, PageSize};

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Length, bytes.
    pub bytes: u64,
}

impl Range {
    fn end(self) -> u64 {
        self.start.saturating_add(self.bytes)
    }
}

/// Pages found in some ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Pages by node.
    pub pages: BTreeMap<NodeId, u64>,
    /// Sizes of the pages found, ascending, each once.
    pub page_sizes: Vec<PageSize>,
}

/// Why pages could not be counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CensusError {
    /// Two ranges share one mapping, whose pages are on several nodes or not all there.
    #[error(
        "The kernel has merged the mapping at {start:#x} with its neighbour, and its pages are not all on one node"
    )]
    Merged {
        /// Where the mapping starts.
        start: u64,
    },
    /// The kernel has no such file.
    #[error("The kernel does not count pages by node: it is built without CONFIG_NUMA")]
    NoNuma,
}

/// One mapping, as the kernel counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    range: Range,
    page_size: PageSize,
    pages: BTreeMap<NodeId, u64>,
}

/// The mappings of a process, counted.
#[derive(Clone, Debug, Default)]
pub struct Mappings(Vec<Mapping>);

impl Mappings {
    /// Reads the text of `maps` (for where mappings end) and of `numa_maps` (for their pages).
    /// Lines that are not understood are left out: their pages count as missing.
    #[must_use]
    pub fn parse(maps: &str, numa_maps: &str) -> Self {
        let ends: BTreeMap<u64, u64> = maps.lines().filter_map(parse_extent).collect();
        Self(numa_maps.lines().filter_map(|line| parse_mapping(line, &ends)).collect())
    }

    /// Counts the pages in some ranges.
    ///
    /// # Errors
    /// [`CensusError::Merged`] where a mapping reaches beyond a range and the kernel's
    /// counts do not say which of its pages are inside.
    pub fn count(&self, ranges: &[Range]) -> Result<Census, CensusError> {
        let mut census = Census::default();
        for range in ranges {
            for mapping in &self.0 {
                let inside = overlap(mapping.range, *range);
                if inside == 0 {
                    continue;
                }
                for (&node, &pages) in &mapping.pages {
                    let counted = if inside == mapping.range.bytes {
                        pages
                    } else if mapping.is_whole_on(pages) {
                        inside / mapping.page_size.bytes()
                    } else {
                        return Err(CensusError::Merged { start: mapping.range.start });
                    };
                    let count = census.pages.entry(node).or_default();
                    *count = count.saturating_add(counted);
                }
                if !mapping.pages.is_empty() && !census.page_sizes.contains(&mapping.page_size) {
                    census.page_sizes.push(mapping.page_size);
                }
            }
        }
        census.page_sizes.sort_unstable();
        Ok(census)
    }
}

impl Mapping {
    /// Whether these pages of one node are all that the mapping can have.
    fn is_whole_on(&self, pages: u64) -> bool {
        pages.checked_mul(self.page_size.bytes()) == Some(self.range.bytes)
    }
}

fn overlap(a: Range, b: Range) -> u64 {
    a.end().min(b.end()).saturating_sub(a.start.max(b.start))
}

/// `START-END …` of `/proc/PID/maps`.
fn parse_extent(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

/// `START POLICY key=value…` of `/proc/PID/numa_maps`, with `N<node>=<pages>` and `kernelpagesize_kB=<size>`.
fn parse_mapping(line: &str, ends: &BTreeMap<u64, u64>) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let start = u64::from_str_radix(words.next()?, 16).ok()?;
    let bytes = ends.get(&start)?.checked_sub(start)?;
    let mut mapping =
        Mapping { range: Range { start, bytes }, page_size: PageSize::KIB4, pages: BTreeMap::new() };
    for (key, value) in words.filter_map(|w| w.split_once('=')) {
        if key == "kernelpagesize_kB" {
            mapping.page_size = PageSize::new(value.parse::<u64>().ok()?.checked_mul(1024)?).ok()?;
        } else if let Some(node) = key.strip_prefix('N').and_then(|n| n.parse().ok()) {
            mapping.pages.insert(NodeId(node), value.parse().ok()?);
        }
    }
    Some(mapping)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAPS: &str = "\
7f0000000000-7f0040000000 rw-p 00000000 00:0f 1 /anon_hugepage (deleted)
7f0040000000-7f0080000000 rw-p 00000000 00:0f 2 /anon_hugepage (deleted)
7f0090000000-7f0090010000 rw-p 00000000 00:00 0
7fffe000-7ffff000 rw-p 00000000 00:00 0 [stack]
";
    const NUMA_MAPS: &str = "\
7f0000000000 bind:0 file=/anon_hugepage\\040(deleted) huge anon=512 dirty=512 N0=512 kernelpagesize_kB=2048
7f0040000000 bind:1 file=/anon_hugepage\\040(deleted) huge anon=512 dirty=512 N0=2 N1=500 kernelpagesize_kB=2048
7f0090000000 bind:0 anon=16 dirty=16 active=0 N0=16 kernelpagesize_kB=4
7fffe000 default stack anon=1 dirty=1 N3=1 kernelpagesize_kB=4
";

    fn count(start: u64, bytes: u64) -> Result<Census, CensusError> {
        Mappings::parse(MAPS, NUMA_MAPS).count(&[Range { start, bytes }])
    }

    fn pages(census: &Census) -> Vec<(u32, u64)> {
        census.pages.iter().map(|(n, &p)| (n.0, p)).collect()
    }

    #[test]
    fn huge_pages_are_counted_by_node() {
        let census = count(0x7f00_0000_0000, 1 << 30).unwrap();
        assert_eq!((pages(&census), census.page_sizes), (vec![(0, 512)], vec![PageSize::MIB2]));
        let census = count(0x7f00_4000_0000, 1 << 30).unwrap();
        assert_eq!(pages(&census), [(0, 2), (1, 500)]);
    }

    #[test]
    fn several_ranges_add_up() {
        let ranges = [
            Range { start: 0x7f00_0000_0000, bytes: 1 << 30 },
            Range { start: 0x7f00_9000_0000, bytes: 1 << 16 },
        ];
        let census = Mappings::parse(MAPS, NUMA_MAPS).count(&ranges).unwrap();
        assert_eq!(pages(&census), [(0, 528)]);
        assert_eq!(census.page_sizes, [PageSize::KIB4, PageSize::MIB2]);
    }

    #[test]
    fn a_part_of_a_mapping_is_counted_where_the_whole_of_it_is_on_one_node() {
        assert_eq!(pages(&count(0x7f00_9000_4000, 0x8000).unwrap()), [(0, 8)]);
        assert_eq!(count(0x7f00_4000_0000, 1 << 29), Err(CensusError::Merged { start: 0x7f00_4000_0000 }));
    }

    #[test]
    fn a_range_without_pages_counts_none() {
        assert_eq!(count(0x1000, 1 << 20).unwrap(), Census::default());
    }

    #[test]
    fn this_process_counts_its_own_pages() {
        let Ok(numa_maps) = std::fs::read_to_string("/proc/self/numa_maps") else {
            println!("skipped: the kernel is built without CONFIG_NUMA");
            return;
        };
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let everything = [Range { start: 0, bytes: 0x7fff_ffff_f000 }];
        let census = Mappings::parse(&maps, &numa_maps).count(&everything).unwrap();
        assert!(census.pages.values().sum::<u64>() > 0);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(maps in ".{0,200}", numa in "([0-9a-f]{1,16}( [A-Za-z0-9_=:]{0,20}){0,4}\n){0,8}") {
            let _ = Mappings::parse(&maps, &numa).count(&[Range { start: 0, bytes: u64::MAX }]);
        }
    }
}
