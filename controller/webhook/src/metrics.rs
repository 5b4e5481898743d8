//! Metrics of the webhook.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder, exponential_buckets,
};

use crate::certificates::{Authority, Stored};
use crate::event::Event;
use crate::review::{Hook, Operation};

/// A metric of the page about them.
struct Metric {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
}

const REQUESTS: Metric = Metric {
    name: "pinion_webhook_requests_total",
    help: "Reviews by hook, operation and verdict: Allowed, Refused, Malformed (also what is too big, late or no review), \
        Overloaded, Panicked.",
    labels: &["hook", "operation", "verdict"],
};
const REQUEST_SECONDS: Metric = Metric {
    name: "pinion_webhook_request_seconds",
    help: "How long reviews took, from the head of the request to the answer.",
    labels: &["hook"],
};
const CERTIFICATE_END: Metric = Metric {
    name: "pinion_webhook_certificate_end_timestamp_seconds",
    help: "When the certificate ends: of what is served (serving), of the newest authority (ca); seconds since 1970.",
    labels: &["certificate"],
};
const REPLACEMENTS: Metric = Metric {
    name: "pinion_webhook_certificate_replacements_total",
    help: "What this replica replaced in the Secret, by cause: Authority, Serving, Ended, Damaged.",
    labels: &["cause"],
};
const KEEPING_FAILURES: Metric = Metric {
    name: "pinion_webhook_certificate_failures_total",
    help: "Attempts to look after certificates that failed.",
    labels: &[],
};
const INJECTIONS: Metric = Metric {
    name: "pinion_webhook_injections_total",
    help: "Bundles written into configurations by this replica, by hook and result: ok, Refused, Absent, Busy.",
    labels: &["hook", "result"],
};
const REJECTED: Metric = Metric {
    name: "pinion_webhook_rejected_connections_total",
    help: "Connections cut off, by cause: Full (too many), Handshake (no TLS, or our certificate was refused), Slow.",
    labels: &["cause"],
};

/// All of them.
const METRICS: [&Metric; 7] =
    [&REQUESTS, &REQUEST_SECONDS, &CERTIFICATE_END, &REPLACEMENTS, &KEEPING_FAILURES, &INJECTIONS, &REJECTED];

impl Metric {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    fn kind(&self) -> &'static str {
        match self.name {
            name if name.ends_with("_total") => "counter",
            name if name.ends_with("_timestamp_seconds") => "gauge",
            _ => "histogram",
        }
    }
}

/// `docs/webhook-metrics.md`.
#[must_use]
pub fn metrics_page() -> String {
    let mut page =
        "# Metrics of the webhook\n\nThe controller serves them at `/metrics`, beside its own.\n\n\
        | metric | kind | labels | what it says |\n| --- | --- | --- | --- |\n"
            .to_owned();
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        let (name, kind, labels) = (metric.name, metric.kind(), labels.join(", "));
        page.push_str(&format!("| `{name}` | {kind} | {labels} | {} |\n", metric.help));
    }
    page
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Allowed,
    Refused,
    Malformed,
    Overloaded,
    Panicked,
}

/// Why a connection was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Full,
    Handshake,
    Slow,
}

/// What is counted. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: CounterVec,
    request_seconds: HistogramVec,
    certificate_end: GaugeVec,
    replacements: CounterVec,
    keeping_failures: CounterVec,
    injections: CounterVec,
    rejected: CounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// # Panics
    /// Never: the names above are good, which a test sees to.
    #[must_use]
    #[expect(clippy::expect_used, reason = "names that are constants")]
    pub fn new() -> Self {
        let gauge = |m: &Metric| GaugeVec::new(m.opts(), m.labels).expect("a good name");
        let counter = |m: &Metric| CounterVec::new(m.opts(), m.labels).expect("a good name");
        let buckets = exponential_buckets(0.000_25, 4.0, 9).expect("good buckets");
        let seconds = HistogramOpts::from(REQUEST_SECONDS.opts()).buckets(buckets);
        Self {
            requests: counter(&REQUESTS),
            request_seconds: HistogramVec::new(seconds, REQUEST_SECONDS.labels).expect("a good name"),
            certificate_end: gauge(&CERTIFICATE_END),
            replacements: counter(&REPLACEMENTS),
            keeping_failures: counter(&KEEPING_FAILURES),
            injections: counter(&INJECTIONS),
            rejected: counter(&REJECTED),
        }
    }

    /// Puts them on the page of a registry.
    ///
    /// # Errors
    /// From the registry, where they are on it already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 7] = [
            Box::new(self.requests.clone()),
            Box::new(self.request_seconds.clone()),
            Box::new(self.certificate_end.clone()),
            Box::new(self.replacements.clone()),
            Box::new(self.keeping_failures.clone()),
            Box::new(self.injections.clone()),
            Box::new(self.rejected.clone()),
        ];
        all.into_iter().try_for_each(|one| registry.register(one))
    }

    /// A page of them alone; `None` where the library refuses it.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let registry = Registry::new();
        self.register(&registry).ok()?;
        TextEncoder::new().encode_to_string(&registry.gather()).ok()
    }

    /// What happened.
    pub fn event(&self, event: &Event) {
        match event {
            Event::Damaged { .. } => self.replacements.with_label_values(&["Damaged"]).inc(),
            Event::Replaced { causes, .. } => {
                for cause in causes {
                    self.replacements.with_label_values(&[cause.reason()]).inc();
                }
            }
            Event::NotKept { .. } => self.keeping_failures.with_label_values::<&str>(&[]).inc(),
            Event::Injected { hook, .. } => self.injections.with_label_values(&[hook.name(), "ok"]).inc(),
            Event::NotInjected { hook, error } => {
                self.injections.with_label_values(&[hook.name(), error.reason()]).inc();
            }
            // Counted as the end of its request.
            Event::Panicked { .. } => {}
        }
    }

    /// What is kept now.
    pub fn certificates(&self, stored: &Stored) {
        let newest = stored.authorities().iter().map(Authority::until).max();
        for (certificate, until) in [("serving", Some(stored.serving().until())), ("ca", newest)] {
            if let Some(until) = until {
                self.certificate_end.with_label_values(&[certificate]).set(seconds(until.as_second()));
            }
        }
    }

    pub(crate) fn request(&self, hook: Hook, operation: Option<Operation>, ended: Ended, took: Duration) {
        let verdict = match ended {
            Ended::Allowed => "Allowed",
            Ended::Refused => "Refused",
            Ended::Malformed => "Malformed",
            Ended::Overloaded => "Overloaded",
            Ended::Panicked => "Panicked",
        };
        let operation = operation.map_or("", Operation::name);
        self.requests.with_label_values(&[hook.name(), operation, verdict]).inc();
        self.request_seconds.with_label_values(&[hook.name()]).observe(took.as_secs_f64());
    }

    pub(crate) fn cut(&self, cut: Cut) {
        let cause = match cut {
            Cut::Full => "Full",
            Cut::Handshake => "Handshake",
            Cut::Slow => "Slow",
        };
        self.rejected.with_label_values(&[cause]).inc();
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
const fn seconds(of: i64) -> f64 {
    of as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::{Cause, Decision, Lives, Wish, next};
    use crate::injection::InjectError;

    #[test]
    fn what_happened_is_counted() {
        let metrics = Metrics::new();
        let took = Duration::from_millis(1);
        metrics.request(Hook::Validate, Some(Operation::Create), Ended::Refused, took);
        metrics.request(Hook::Mutate, None, Ended::Malformed, took);
        metrics.cut(Cut::Slow);
        let causes = vec![Cause::Authority, Cause::Serving];
        metrics.event(&Event::Replaced { secret: "a/b".into(), causes });
        let error = InjectError::Absent { kind: "K", name: "n".into() };
        metrics.event(&Event::NotInjected { hook: Hook::Mutate, error });
        let wish = Wish::new(&["a.b.svc"], Lives::default()).unwrap();
        let now = "2026-11-20T10:00:00Z".parse().unwrap();
        let Decision::Replace { stored, .. } = next(None, now, &wish).unwrap() else {
            panic!("nothing there")
        };
        metrics.certificates(&stored);
        let text = metrics.text().unwrap();
        for line in [
            "pinion_webhook_requests_total{hook=\"validate\",operation=\"CREATE\",verdict=\"Refused\"} 1",
            "pinion_webhook_requests_total{hook=\"mutate\",operation=\"\",verdict=\"Malformed\"} 1",
            "pinion_webhook_request_seconds_count{hook=\"validate\"} 1",
            "pinion_webhook_rejected_connections_total{cause=\"Slow\"} 1",
            "pinion_webhook_certificate_replacements_total{cause=\"Serving\"} 1",
            "pinion_webhook_injections_total{hook=\"mutate\",result=\"Absent\"} 1",
            "pinion_webhook_certificate_end_timestamp_seconds{certificate=\"serving\"} 1797760800",
            "pinion_webhook_certificate_end_timestamp_seconds{certificate=\"ca\"} 1826704800",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
    }

    #[test]
    fn the_page_names_all_of_them() {
        let page = include_str!("../../../docs/webhook-metrics.md");
        let repeat = "cargo run -q -p pinion-webhook --example webhook-metrics > docs/webhook-metrics.md";
        assert!(page == metrics_page(), "{repeat}");
    }
}
