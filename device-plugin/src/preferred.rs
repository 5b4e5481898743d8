//! Which units are best given together: those nearest to each other.
//!
//! Asked by the kubelet within what its topology manager has left, so nearness to the container's CPUs is settled by
//! then. It must never take a unit that is not available.

use pinion_machine::{Distances, NodeId};

use crate::{Unit, UnitId};

/// Units on one node.
#[derive(Debug)]
struct Place {
    node: Option<NodeId>,
    free: Vec<UnitId>,
}

/// So many of the available units, those that must be among them first: with the smallest sum of distances between the
/// nodes of all pairs that one node as the middle can give; of equals, what leaves the fewest units on the middle's node,
/// then the lowest node. Fewer where there are not as many. A unit of which the firmware says no node is as far from all
/// others as nodes are at most.
#[must_use]
pub fn preferred(
    units: &[Unit],
    available: &[UnitId],
    must: &[UnitId],
    count: usize,
    distances: &Distances,
) -> Vec<UnitId> {
    let node_of = |id: &UnitId| units.iter().find(|u| u.id == *id).and_then(|u| u.nodes.first().copied());
    let mut places: Vec<Place> = Vec::new();
    let mut ids: Vec<UnitId> = available.iter().copied().filter(|id| !must.contains(id)).collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        let node = node_of(&id);
        match places.iter_mut().find(|p| p.node == node) {
            Some(place) => place.free.push(id),
            None => places.push(Place { node, free: vec![id] }),
        }
    }
    let mut taken: Vec<UnitId> = must.to_vec();
    taken.truncate(count);
    let missing = count - taken.len();
    let given: Vec<Option<NodeId>> = taken.iter().map(node_of).collect();
    let best = places
        .iter()
        .map(|middle| {
            let picked = around(middle, &places, missing, distances);
            let nodes: Vec<Option<NodeId>> =
                given.iter().copied().chain(picked.iter().map(|(node, _)| *node)).collect();
            let used = picked.iter().filter(|(node, _)| *node == middle.node).count();
            let left = middle.free.len() - used;
            ((spread(&nodes, distances), left, middle.node), picked)
        })
        .min_by(|(a, _), (b, _)| a.cmp(b));
    taken.extend(best.into_iter().flat_map(|(_, picked)| picked).map(|(_, id)| id));
    taken
}

/// The nearest units to a place, its own first.
fn around(
    middle: &Place,
    places: &[Place],
    count: usize,
    distances: &Distances,
) -> Vec<(Option<NodeId>, UnitId)> {
    let mut order: Vec<&Place> = places.iter().collect();
    order.sort_by_key(|p| (p.node != middle.node, between(p.node, middle.node, distances), p.node));
    order.into_iter().flat_map(|p| p.free.iter().map(|id| (p.node, *id))).take(count).collect()
}

fn spread(nodes: &[Option<NodeId>], distances: &Distances) -> u64 {
    let pairs = nodes.iter().enumerate().flat_map(|(i, a)| nodes.iter().skip(i + 1).map(move |b| (*a, *b)));
    pairs.map(|(a, b)| u64::from(between(a, b, distances))).sum()
}

/// The ACPI SLIT's largest distance stands for what is not known.
fn between(a: Option<NodeId>, b: Option<NodeId>, distances: &Distances) -> u32 {
    a.zip(b).map_or(255, |(a, b)| distances.between(a, b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Health;

    /// Four nodes on two sockets.
    fn distances() -> Distances {
        let rows =
            vec![vec![10, 12, 32, 32], vec![12, 10, 32, 32], vec![32, 32, 10, 12], vec![32, 32, 12, 10]];
        Distances::new((0..4).map(NodeId).collect(), rows).unwrap()
    }

    fn unit(number: u8, node: Option<u32>) -> Unit {
        let address = pinion_machine::Bdf::new(0, number, 0, 0).unwrap();
        Unit {
            id: UnitId::Function(address),
            parent: None,
            functions: vec![address],
            group: None,
            nodes: node.map(NodeId).into_iter().collect(),
            health: Health::Healthy,
        }
    }

    fn units(nodes: &[Option<u32>]) -> Vec<Unit> {
        nodes.iter().zip(0..).map(|(node, number)| unit(number, *node)).collect()
    }

    fn picked(nodes: &[Option<u32>], must: &[u8], count: usize) -> Vec<u8> {
        let units = units(nodes);
        let all: Vec<UnitId> = units.iter().map(|u| u.id).collect();
        let must: Vec<UnitId> = must.iter().map(|n| all[usize::from(*n)]).collect();
        let mut found: Vec<u8> = preferred(&units, &all, &must, count, &distances())
            .iter()
            .map(|id| u8::try_from(all.iter().position(|a| a == id).unwrap()).unwrap())
            .collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn one_node_is_better_than_two_and_near_nodes_than_far_ones() {
        let nodes = [Some(0), Some(2), Some(1), Some(2), Some(3)];
        assert_eq!(picked(&nodes, &[], 2), [1, 3]);
        assert_eq!(picked(&nodes, &[], 3), [1, 3, 4]);
        assert_eq!(picked(&nodes, &[0], 2), [0, 2], "near what must be among them");
    }

    #[test]
    fn whole_nodes_are_left_for_those_who_need_more() {
        let nodes = [Some(0), Some(0), Some(0), Some(2)];
        assert_eq!(picked(&nodes, &[], 1), [3]);
        assert_eq!(picked(&nodes, &[], 2), [0, 1]);
    }

    #[test]
    fn a_unit_whose_node_is_not_known_is_taken_last() {
        assert_eq!(picked(&[None, Some(3), Some(3)], &[], 2), [1, 2]);
        assert_eq!(picked(&[None, Some(3)], &[], 2), [0, 1]);
    }

    proptest! {
        #[test]
        fn as_many_as_asked_each_once_and_of_those_available(
            nodes in prop::collection::vec(prop::option::of(0..4u32), 0..12),
            must in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
            count in 0..14usize,
        ) {
            let must: std::collections::BTreeSet<u8> = if nodes.is_empty() {
                Default::default()
            } else {
                must.iter().map(|i| u8::try_from(i.index(nodes.len())).unwrap()).collect()
            };
            let must: Vec<u8> = must.into_iter().collect();
            let found = picked(&nodes, &must, count);
            prop_assert_eq!(found.len(), count.min(nodes.len()));
            prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(must.iter().take(count).all(|m| found.contains(m)));
        }
    }
}
