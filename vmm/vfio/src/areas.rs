//! Which stretches of a BAR the guest gets as its own, without exits. Pure arithmetic.

use crate::host::{Area, HostBar};

/// Pages are what can be mapped.
const PAGE: u64 = 4096;

/// The stretches of `bar` to map. `kept` are those that are emulated: the MSI-X table and its
/// pending bits.
///
/// 1. What the kernel does not let be mapped, is not.
/// 2. Where it names stretches, those are taken and no others.
/// 3. Pages with something emulated are left out; where the kernel does not let a BAR with the
///    MSI-X table be mapped at all, none of it is.
pub(crate) fn mapped(bar: &HostBar, kept: &[Area]) -> Vec<Area> {
    if !bar.mappable || bar.bytes < PAGE || (!bar.msix_mappable && bar.sparse.is_none() && !kept.is_empty()) {
        return Vec::new();
    }
    let whole = Area { offset: 0, bytes: bar.bytes };
    let offered = bar.sparse.clone().unwrap_or_else(|| vec![whole]);
    let mut areas: Vec<Area> = offered.into_iter().filter_map(|area| inner_pages(area, bar.bytes)).collect();
    for hole in kept {
        areas = areas.into_iter().flat_map(|area| without(area, outer_pages(*hole))).collect();
    }
    areas.sort_by_key(|a| a.offset);
    // Stretches that overlap could not be shown to the guest.
    let mut end = 0;
    areas.retain(|a| {
        let apart = a.offset >= end;
        end = if apart { a.end() } else { end };
        apart
    });
    areas
}

/// The whole pages inside a stretch, as far as the BAR goes.
fn inner_pages(area: Area, bytes: u64) -> Option<Area> {
    let start = area.offset.checked_next_multiple_of(PAGE)?;
    let end = area.end().min(bytes) / PAGE * PAGE;
    (end > start).then(|| Area { offset: start, bytes: end - start })
}

/// All pages that a stretch touches.
fn outer_pages(area: Area) -> Area {
    let start = area.offset / PAGE * PAGE;
    let end = area.end().checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
    Area { offset: start, bytes: end - start }
}

fn without(area: Area, hole: Area) -> Vec<Area> {
    if hole.bytes == 0 || hole.offset >= area.end() || hole.end() <= area.offset {
        return vec![area];
    }
    let before = Area { offset: area.offset, bytes: hole.offset.saturating_sub(area.offset) };
    let after = Area { offset: hole.end(), bytes: area.end().saturating_sub(hole.end()) };
    [before, after].into_iter().filter(|a| a.bytes > 0).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn area(offset: u64, bytes: u64) -> Area {
        Area { offset, bytes }
    }

    fn bar(bytes: u64) -> HostBar {
        HostBar { bytes, mappable: true, writable: true, sparse: None, msix_mappable: true }
    }

    #[test]
    fn the_page_of_the_table_is_left_out() {
        assert_eq!(mapped(&bar(0x4000), &[]), [area(0, 0x4000)]);
        let with_table = mapped(&bar(0x4000), &[area(0x2000, 0x110), area(0x3000, 8)]);
        assert_eq!(with_table, [area(0, 0x2000)]);
        let table_in_the_middle = mapped(&bar(0x4000), &[area(0x1ff8, 16)]);
        assert_eq!(table_in_the_middle, [area(0, 0x1000), area(0x3000, 0x1000)]);
    }

    #[test]
    fn nothing_is_mapped_that_the_kernel_does_not_offer() {
        assert_eq!(mapped(&HostBar { mappable: false, ..bar(0x4000) }, &[]), []);
        assert_eq!(mapped(&bar(0x100), &[]), [], "less than a page");
        let old = HostBar { msix_mappable: false, ..bar(0x4000) };
        assert_eq!(mapped(&old, &[area(0, 16)]), []);
        assert_eq!(mapped(&old, &[]), [area(0, 0x4000)], "the table is in another BAR");
        let sparse =
            HostBar { sparse: Some(vec![area(0x1000, 0x1000), area(0x2800, 0x1000)]), ..bar(0x4000) };
        assert_eq!(mapped(&sparse, &[]), [area(0x1000, 0x1000)]);
    }

    proptest! {
        #[test]
        fn mapped_stretches_are_pages_of_the_bar_apart_from_what_is_kept(
            pages in 0u64..40,
            kept in prop::collection::vec((0u64..0x30000, 0u64..0x3000), 0..3),
            sparse in prop::option::of(prop::collection::vec((0u64..0x30000, 0u64..0x9000), 0..4)),
        ) {
            let areas = |list: Vec<(u64, u64)>| list.into_iter().map(|(o, b)| area(o, b)).collect::<Vec<_>>();
            let kept = areas(kept);
            let bar = HostBar { sparse: sparse.map(areas), ..bar(pages * PAGE) };
            let mut end = 0;
            for a in mapped(&bar, &kept) {
                prop_assert!(a.bytes > 0 && a.offset % PAGE == 0 && a.bytes % PAGE == 0);
                prop_assert!(a.offset >= end && a.end() <= bar.bytes);
                end = a.end();
                let clear = |k: &Area| k.bytes == 0 || k.end() <= a.offset || k.offset >= a.end();
                prop_assert!(kept.iter().all(clear));
            }
        }
    }
}
