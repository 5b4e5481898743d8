//! A node as whoever chooses among nodes sees it.

use std::collections::BTreeMap;

use crate::books::Books;

/// A node of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterNode {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints. A node that was cordoned has `node.kubernetes.io/unschedulable`.
    pub taints: Vec<Taint>,
    /// Why it takes nobody now, whoever asks: it is not ready, or its agent has not been heard of.
    pub obstacle: Option<String>,
    /// Who has what on it, and what is left.
    pub books: Books,
}

/// What keeps pods off a node that do not tolerate it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; empty for none.
    pub value: String,
    /// What it does.
    pub effect: Effect,
}

/// What a taint does. `PreferNoSchedule` is no taint here: nodes that are left are better than none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No new pods.
    NoSchedule,
    /// No pods.
    NoExecute,
}

impl Effect {
    /// The effect of that name; `None` for one that keeps nobody off.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::NoSchedule, Self::NoExecute].into_iter().find(|effect| effect.as_str() == name)
    }

    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}
