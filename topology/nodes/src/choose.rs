//! Which of many nodes takes a guest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pinion_api::VirtualMachineInstance;
use pinion_machine::NodeId;
use pinion_planner::{CpuPolicy, Placement, Request};

use crate::fit;
use crate::node::ClusterNode;

/// Most nodes that a text names one by one.
const NAMED: usize = 8;

/// A node that takes a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its name.
    pub node: String,
    /// What the guest needs there.
    pub request: Request,
    /// Where it would go there.
    pub placement: Placement,
}

/// Why no node takes a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NowhereToRun {
    /// What each node says, by name.
    pub answers: Vec<NodeAnswer>,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAnswer {
    /// Its name.
    pub node: String,
    /// Why it does not take the guest.
    pub why: String,
    /// Whether it might when others have gone: it is only full.
    pub is_full: bool,
}

/// Chooses the node for a guest, by these rules, each where those before it leave a choice:
///
/// 1. Its labels, affinity and taints allow it, and the planner finds a place.
/// 2. The guest prefers it (`preferredDuringSchedulingIgnoredDuringExecution`).
/// 3. It takes the guest on the fewest NUMA nodes.
/// 4. With dedicated CPUs, it has the fewest free CPUs: nodes that are whole stay whole for guests that need that.
///    Without, the fewest vCPUs share its CPUs.
/// 5. Its name is the first.
///
/// Nodes are asked in the order of rules 2, 4 and 5, and the first that takes the guest on one NUMA node is it: no later one
/// is better.
///
/// # Errors
/// What each node says.
pub fn choose<'a>(
    instance: &VirtualMachineInstance,
    nodes: impl Iterator<Item = &'a ClusterNode>,
) -> Result<Choice, NowhereToRun> {
    let mut answers = Vec::new();
    let mut willing = Vec::new();
    for node in nodes {
        match fit::misfit(&instance.spec, node) {
            Some(misfit) => {
                answers.push(NodeAnswer { node: node.name.clone(), why: misfit.to_string(), is_full: false })
            }
            None => willing.push((order(instance, node), node)),
        }
    }
    willing.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut best: Option<(Reverse<i64>, usize, Choice)> = None;
    for (order, node) in willing {
        if best.as_ref().is_some_and(|(preference, nodes, _)| *preference < order.preference || *nodes <= 1) {
            break;
        }
        match ask(instance, node) {
            Ok(choice) => {
                let spread = spread(&choice.placement);
                if best.as_ref().is_none_or(|(_, before, _)| spread < *before) {
                    best = Some((order.preference, spread, choice));
                }
            }
            Err(answer) => answers.push(answer),
        }
    }
    answers.sort_by(|one, other| one.node.cmp(&other.node));
    best.map(|(_, _, choice)| choice).ok_or(NowhereToRun { answers })
}

/// In which order nodes are asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    preference: Reverse<i64>,
    load: u64,
    name: String,
}

fn order(instance: &VirtualMachineInstance, node: &ClusterNode) -> Order {
    let load = if instance.spec.dedicated_cpus() {
        u64::try_from(node.books.free_cpus()).unwrap_or(u64::MAX)
    } else {
        node.books.floating()
    };
    Order { preference: Reverse(fit::preference(&instance.spec, node)), load, name: node.name.clone() }
}

fn ask(instance: &VirtualMachineInstance, node: &ClusterNode) -> Result<Choice, NodeAnswer> {
    let answer = |why: String, is_full| NodeAnswer { node: node.name.clone(), why, is_full };
    let request = node.books.request(instance).map_err(|e| answer(e.to_string(), false))?;
    match node.books.plan(&request) {
        Ok(placement) => Ok(Choice { node: node.name.clone(), request, placement }),
        Err(refusal) => Err(answer(refusal.message, true)),
    }
}

/// NUMA nodes that a guest is on.
fn spread(placement: &Placement) -> usize {
    placement.cells.iter().map(|cell| cell.host_node).collect::<BTreeSet<NodeId>>().len()
}

impl NowhereToRun {
    /// Whether there is a node that is only full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.answers.iter().any(|answer| answer.is_full)
    }
}

/// Each node with its answer; where there are many, how many say the same.
impl fmt::Display for NowhereToRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.answers.is_empty() {
            return f.write_str("no node has an agent of Pinion: is the DaemonSet pinion-agent running?");
        }
        write!(f, "0 of {} nodes can take it", self.answers.len())?;
        if self.answers.len() <= NAMED {
            return self
                .answers
                .iter()
                .try_for_each(|answer| write!(f, "\n* {}: {}", answer.node, answer.why));
        }
        let mut same: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for answer in &self.answers {
            same.entry(&answer.why).or_default().push(&answer.node);
        }
        let mut groups: Vec<(&str, Vec<&str>)> = same.into_iter().collect();
        groups.sort_by_key(|(_, nodes)| Reverse(nodes.len()));
        for (why, nodes) in groups.iter().take(NAMED) {
            match nodes.as_slice() {
                [only] => write!(f, "\n* {only}: {why}")?,
                several => write!(
                    f,
                    "\n* {} nodes, {} for one: {why}",
                    several.len(),
                    several.first().unwrap_or(&"")
                )?,
            }
        }
        let left = groups.len().saturating_sub(NAMED);
        if left > 0 { write!(f, "\n* and {left} more answers") } else { Ok(()) }
    }
}

impl Choice {
    /// Whether its vCPUs have CPUs of their own.
    #[must_use]
    pub fn is_dedicated(&self) -> bool {
        self.request.cpu.policy == CpuPolicy::Dedicated
    }
}
