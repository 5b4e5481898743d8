//! Choosing a node: affinity, tolerations, spreading, claims. Matters of a
//! cluster; refused on one host.

use std::collections::BTreeMap;

use crate::schema::Status::{Part, Planned};
use crate::vmi::NEIGHBOURS;

object! {
    "Which nodes and neighbours a guest wants."
    Affinity {
        node_affinity "nodeAffinity": Option<NodeAffinity>, Part, "Nodes.";
        pod_affinity "podAffinity": Option<PodAffinity>, Planned(NEIGHBOURS), "Neighbours to be near.";
        pod_anti_affinity "podAntiAffinity": Option<PodAffinity>, Planned(NEIGHBOURS), "Neighbours to be far from.";
    }

    "Which nodes a guest wants."
    NodeAffinity {
        preferred "preferredDuringSchedulingIgnoredDuringExecution": Vec<PreferredNodes>, Part, "Better.";
        required "requiredDuringSchedulingIgnoredDuringExecution": Option<NodeSelector>, Part, "A must.";
    }

    "Nodes that are better than others."
    PreferredNodes {
        preference "preference": NodeSelectorTerm, Part, "Which nodes.";
        weight "weight": i32, Part, "How much better.";
    }

    "Nodes that will do."
    NodeSelector {
        node_selector_terms "nodeSelectorTerms": Vec<NodeSelectorTerm>, Part, "Any one of these.";
    }

    "A description of nodes."
    NodeSelectorTerm {
        match_expressions "matchExpressions": Vec<Requirement>, Part, "By label.";
        match_fields "matchFields": Vec<Requirement>, Part, "By field.";
    }

    "A test of a label or field."
    Requirement {
        key "key": String, Part, "Which.";
        operator "operator": String, Part, "How.";
        values "values": Vec<String>, Part, "Against what.";
    }

    "Neighbours a guest wants near or far."
    PodAffinity {
        preferred "preferredDuringSchedulingIgnoredDuringExecution": Vec<PreferredPods>, Part, "Better.";
        required "requiredDuringSchedulingIgnoredDuringExecution": Vec<PodAffinityTerm>, Part, "A must.";
    }

    "Neighbours that are better than others."
    PreferredPods {
        pod_affinity_term "podAffinityTerm": PodAffinityTerm, Part, "Which.";
        weight "weight": i32, Part, "How much better.";
    }

    "A description of neighbours."
    PodAffinityTerm {
        label_selector "labelSelector": Option<LabelSelector>, Part, "By label.";
        match_label_keys "matchLabelKeys": Vec<String>, Part, "Labels that must be the same.";
        mismatch_label_keys "mismatchLabelKeys": Vec<String>, Part, "Labels that must differ.";
        namespace_selector "namespaceSelector": Option<LabelSelector>, Part, "Namespaces, by label.";
        namespaces "namespaces": Vec<String>, Part, "Namespaces, by name.";
        topology_key "topologyKey": String, Part, "What is near.";
    }

    "A description of objects by label."
    LabelSelector {
        match_expressions "matchExpressions": Vec<Requirement>, Part, "Tests.";
        match_labels "matchLabels": BTreeMap<String, String>, Part, "Exact values.";
    }

    "A taint that is tolerated."
    Toleration {
        effect "effect": Option<String>, Part, "Effect of the taint.";
        key "key": Option<String>, Part, "Key of the taint.";
        operator "operator": Option<String>, Part, "How the value is compared.";
        toleration_seconds "tolerationSeconds": Option<i64>, Part, "For how long.";
        value "value": Option<String>, Part, "Value of the taint.";
    }

    "How guests spread over nodes."
    TopologySpreadConstraint {
        label_selector "labelSelector": Option<LabelSelector>, Part, "Which are counted.";
        match_label_keys "matchLabelKeys": Vec<String>, Part, "Labels that must be the same.";
        max_skew "maxSkew": i32, Part, "How uneven.";
        min_domains "minDomains": Option<i32>, Part, "How many domains at least.";
        node_affinity_policy "nodeAffinityPolicy": Option<String>, Part, "Whether node affinity counts.";
        node_taints_policy "nodeTaintsPolicy": Option<String>, Part, "Whether taints count.";
        topology_key "topologyKey": String, Part, "What a domain is.";
        when_unsatisfiable "whenUnsatisfiable": String, Part, "What to do if it cannot be met.";
    }

    "Name resolution of the pod."
    DnsConfig {
        nameservers "nameservers": Vec<String>, Part, "Servers.";
        options "options": Vec<DnsOption>, Part, "Resolver options.";
        searches "searches": Vec<String>, Part, "Search domains.";
    }

    "A resolver option."
    DnsOption {
        name "name": Option<String>, Part, "Its name.";
        value "value": Option<String>, Part, "Its value.";
    }

    "A claim of dynamic resource allocation."
    ResourceClaim {
        name "name": String, Part, "Name in this spec.";
        resource_claim_name "resourceClaimName": Option<String>, Part, "A claim that exists.";
        resource_claim_template_name "resourceClaimTemplateName": Option<String>, Part, "A template to make one from.";
    }
}

impl LabelSelector {
    /// Whether labels pass all of its tests.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let exact = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.match_labels.iter().all(exact)
            && self
                .match_expressions
                .iter()
                .all(|test| test.passes(labels.get(&test.key).map(String::as_str)))
    }
}

impl Requirement {
    /// Whether the value of its key passes, `None` being no such key. An operator that is unknown is never passed.
    ///
    /// Source: Kubernetes' `NodeSelectorRequirement` and `LabelSelectorRequirement`.
    #[must_use]
    pub fn passes(&self, value: Option<&str>) -> bool {
        let is_among = |value: &str| self.values.iter().any(|known| known == value);
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|text| number(text));
        match (self.operator.as_str(), value) {
            ("In", Some(value)) => is_among(value),
            ("NotIn", Some(value)) => !is_among(value),
            ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
            ("Gt", Some(value)) => number(value).zip(bound()).is_some_and(|(value, bound)| value > bound),
            ("Lt", Some(value)) => number(value).zip(bound()).is_some_and(|(value, bound)| value < bound),
            _ => false,
        }
    }
}
