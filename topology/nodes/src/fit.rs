//! Whether a guest wants a node, and the node such a guest: labels, affinity, taints.
//!
//! Source: Kubernetes, "Assigning Pods to Nodes" and "Taints and Tolerations".

use std::fmt;

use pinion_api::{InstanceSpec, NodeSelectorTerm, Toleration};

use crate::node::{ClusterNode, Effect, Taint};

/// The only field that a node is chosen by.
const NAME_FIELD: &str = "metadata.name";

/// Why a guest and a node are not for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Misfit {
    /// The node takes nobody.
    Obstacle(String),
    /// A label of `nodeSelector` is missing or another.
    Selector(String),
    /// It fits no term of `affinity.nodeAffinity`.
    Affinity,
    /// A taint is not tolerated.
    Taint(String),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Obstacle(text) => f.write_str(text),
            Self::Selector(label) => write!(f, "it has no label {label} (nodeSelector)"),
            Self::Affinity => f.write_str("its labels fit no term of affinity.nodeAffinity"),
            Self::Taint(taint) => write!(f, "its taint {taint} is not tolerated"),
        }
    }
}

/// The first reason why they are not for each other.
pub(crate) fn misfit(spec: &InstanceSpec, node: &ClusterNode) -> Option<Misfit> {
    if let Some(obstacle) = &node.obstacle {
        return Some(Misfit::Obstacle(obstacle.clone()));
    }
    let missing = spec.node_selector.iter().find(|(key, value)| node.labels.get(*key) != Some(*value));
    if let Some((key, value)) = missing {
        return Some(Misfit::Selector(format!("{key}={value}")));
    }
    let affinity =
        spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    if affinity.is_some_and(|required| !required.node_selector_terms.iter().any(|term| fits(term, node))) {
        return Some(Misfit::Affinity);
    }
    let kept_off = node.taints.iter().find(|taint| !spec.tolerations.iter().any(|t| tolerates(t, taint)));
    kept_off.map(|taint| Misfit::Taint(words(taint)))
}

/// How much better a guest finds this node than others: the weights of the terms that it fits, added up.
pub(crate) fn preference(spec: &InstanceSpec, node: &ClusterNode) -> i64 {
    let preferred = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    preferred
        .map(|affinity| affinity.preferred.as_slice())
        .unwrap_or_default()
        .iter()
        .filter(|term| fits(&term.preference, node))
        .fold(0i64, |sum, term| sum.saturating_add(i64::from(term.weight)))
}

/// A term without any test fits nothing.
fn fits(term: &NodeSelectorTerm, node: &ClusterNode) -> bool {
    if term.match_expressions.is_empty() && term.match_fields.is_empty() {
        return false;
    }
    let by_label =
        term.match_expressions.iter().all(|test| test.passes(node.labels.get(&test.key).map(String::as_str)));
    let by_field =
        term.match_fields.iter().all(|test| test.key == NAME_FIELD && test.passes(Some(&node.name)));
    by_label && by_field
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
    let (key, effect, value) = (text(&toleration.key), text(&toleration.effect), text(&toleration.value));
    let effect_fits = effect.is_empty() || Effect::of(&effect) == Some(taint.effect);
    let exists = toleration.operator.as_deref() == Some("Exists");
    // Without a key, `Exists` tolerates everything.
    let key_fits = key == taint.key || (key.is_empty() && exists);
    effect_fits && key_fits && (exists || value == taint.value)
}

fn words(taint: &Taint) -> String {
    let equals = if taint.value.is_empty() { String::new() } else { format!("={}", taint.value) };
    format!("{}{equals}:{}", taint.key, taint.effect.as_str())
}
