//! What the controller counts: `docs/controller.md`, "Pages".

use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::kinds::Kind;

/// Seconds. KubeVirt's buckets of phase transitions, and finer ones below, where ours are.
const TRANSITIONS: [f64; 22] = [
    0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 90.0, 120.0, 180.0, 300.0,
    600.0, 1200.0, 1800.0, 3600.0,
];
const BY_PHASE: &str = "kubevirt_vmi_phase_transition_time_seconds";
const FROM_CREATION: &str = "kubevirt_vmi_phase_transition_time_from_creation_seconds";
const FROM_DELETION: &str = "kubevirt_vmi_phase_transition_time_from_deletion_seconds";

/// What the controller counts.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// From one phase of an instance to the next.
    pub(crate) between_phases: HistogramVec,
    /// From an instance's creation to a phase.
    pub(crate) from_creation: HistogramVec,
    /// From an instance's deletion to a phase.
    pub(crate) from_deletion: HistogramVec,
    /// Looks at objects, by kind and outcome.
    pub(crate) looks: IntCounterVec,
    /// How long they took.
    pub(crate) look_seconds: HistogramVec,
    /// Requests to the API server, by kind of object, verb and outcome.
    pub(crate) requests: IntCounterVec,
    /// Places that were booked, refused, or taken by another meanwhile.
    pub(crate) bookings: IntCounterVec,
    /// Objects of each kind.
    pub(crate) objects: IntGaugeVec,
    /// Instances that no node takes now.
    pub(crate) waiting: IntGauge,
    /// Objects that wait to be looked at.
    pub(crate) queue: IntGauge,
    /// Whether this replica is the one that acts.
    pub(crate) leader: IntGauge,
    /// When the last look ended, seconds since the epoch.
    pub(crate) last_look: Gauge,
}

fn histogram(name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(TRANSITIONS.to_vec()), labels)
}

fn counter(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

impl Metrics {
    /// With everything at zero.
    ///
    /// # Errors
    /// Two of one name: never, and a test sees to that.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            between_phases: histogram(
                BY_PHASE,
                "From one phase of an instance to the next.",
                &["phase", "last_phase"],
            )?,
            from_creation: histogram(FROM_CREATION, "From an instance's creation to a phase.", &["phase"])?,
            from_deletion: histogram(FROM_DELETION, "From an instance's deletion to a phase.", &["phase"])?,
            looks: counter("pinion_controller_reconciles_total", "Looks at objects.", &["kind", "outcome"])?,
            look_seconds: histogram(
                "pinion_controller_reconcile_seconds",
                "How long a look took.",
                &["kind"],
            )?,
            requests: counter(
                "pinion_controller_api_requests_total",
                "Requests to the API server that change something.",
                &["kind", "verb", "outcome"],
            )?,
            bookings: counter(
                "pinion_controller_bookings_total",
                "Attempts to book a place on a node.",
                &["outcome"],
            )?,
            objects: IntGaugeVec::new(
                Opts::new("pinion_controller_objects", "Objects that are known."),
                &["kind"],
            )?,
            waiting: IntGauge::new(
                "pinion_controller_unschedulable_instances",
                "Instances that no node takes now.",
            )?,
            queue: IntGauge::new("pinion_controller_queue_length", "Objects that wait to be looked at.")?,
            leader: IntGauge::new("pinion_controller_leader", "Whether this replica is the one that acts.")?,
            last_look: Gauge::new(
                "pinion_controller_last_reconcile_timestamp_seconds",
                "When the last look ended.",
            )?,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let registry = &self.registry;
        for histogram in [&self.between_phases, &self.from_creation, &self.from_deletion, &self.look_seconds]
        {
            registry.register(Box::new(histogram.clone()))?;
        }
        for counter in [&self.looks, &self.requests, &self.bookings] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(self.objects.clone()))?;
        for gauge in [&self.waiting, &self.queue, &self.leader] {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(self.last_look.clone()))
    }

    /// Where others register theirs.
    #[must_use]
    pub(crate) const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A request to the API server was answered.
    pub(crate) fn request(&self, kind: Kind, verb: &str, is_good: bool) {
        let outcome = if is_good { "done" } else { "refused" };
        self.requests.with_label_values(&[kind.plural(), verb, outcome]).inc();
    }

    /// The page.
    #[must_use]
    pub(crate) fn text(&self) -> Option<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_can_be_shown() {
        let metrics = Metrics::new().unwrap();
        metrics.request(Kind::Pod, "create", true);
        metrics.between_phases.with_label_values(&["Running", "Scheduled"]).observe(1.0);
        let text = metrics.text().unwrap();
        assert!(
            text.contains(
                "pinion_controller_api_requests_total{kind=\"pods\",outcome=\"done\",verb=\"create\"} 1"
            ),
            "{text}"
        );
        assert!(text.contains(
            "kubevirt_vmi_phase_transition_time_seconds_bucket{last_phase=\"Scheduled\",phase=\"Running\""
        ));
    }
}
