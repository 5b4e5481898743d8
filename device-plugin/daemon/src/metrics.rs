//! Metrics of the device plugin.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use pinion_device_plugin::{Catalogue, Health};
use pinion_inventory::{Inventory, News};
use pinion_kubelet::Event;
use prometheus::core::Collector;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntGauge, Opts, Registry, TextEncoder,
    exponential_buckets,
};

/// A metric of the page about them.
struct Metric {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
}

const DEVICES: Metric = Metric {
    name: "pinion_device_plugin_devices",
    help: "Devices by resource and health.",
    labels: &["resource", "health"],
};
const HEALTH_CHANGES: Metric = Metric {
    name: "pinion_device_plugin_health_changes_total",
    help: "Devices that could not be given any more, by cause, or could again (Recovered).",
    labels: &["resource", "cause"],
};
const REGISTERED: Metric = Metric {
    name: "pinion_device_plugin_registered",
    help: "Whether the kubelet knows of a resource: 1 or 0.",
    labels: &["resource"],
};
const REGISTRATIONS: Metric = Metric {
    name: "pinion_device_plugin_registrations_total",
    help: "Attempts to make a resource known to the kubelet, by result: ok, Unreachable, Refused, Silent.",
    labels: &["resource", "result"],
};
const CALLS: Metric = Metric {
    name: "pinion_device_plugin_calls_total",
    help: "What the kubelet asked, by result: ok or refused.",
    labels: &["resource", "call", "result"],
};
const CALL_SECONDS: Metric = Metric {
    name: "pinion_device_plugin_call_seconds",
    help: "How long answers to the kubelet took.",
    labels: &["call"],
};
const FILE_FOLLOWED: Metric = Metric {
    name: "pinion_device_plugin_file_followed",
    help: "Whether the file of devices is followed: 0 while it is wrong and what it said before holds.",
    labels: &[],
};

/// All of them.
const METRICS: [&Metric; 7] =
    [&DEVICES, &HEALTH_CHANGES, &REGISTERED, &REGISTRATIONS, &CALLS, &CALL_SECONDS, &FILE_FOLLOWED];

impl Metric {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    fn kind(&self) -> &'static str {
        match self.name {
            name if name.ends_with("_total") => "counter",
            name if name.ends_with("_seconds") => "histogram",
            _ => "gauge",
        }
    }
}

/// `docs/device-plugin-metrics.md`.
#[must_use]
pub fn metrics_page() -> String {
    let mut page = "# Metrics of the device plugin\n\n`pinion device-plugin` serves them at `/metrics` of its `--listen` \
        address.\n\n| metric | kind | labels | what it says |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        page.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            metric.name,
            metric.kind(),
            labels.join(", "),
            metric.help
        ));
    }
    page
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    devices: GaugeVec,
    health_changes: CounterVec,
    registered: GaugeVec,
    registrations: CounterVec,
    calls: CounterVec,
    call_seconds: HistogramVec,
    file_followed: IntGauge,
    /// Resources that the kubelet should know of, and those that it does.
    known: Mutex<(BTreeSet<String>, BTreeSet<String>)>,
}

impl Metrics {
    /// # Panics
    /// Never: the names above are good, which a test sees to.
    #[expect(clippy::expect_used, reason = "names that are constants")]
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let gauge = |m: &Metric| GaugeVec::new(m.opts(), m.labels).expect("a good name");
        let counter = |m: &Metric| CounterVec::new(m.opts(), m.labels).expect("a good name");
        let buckets = exponential_buckets(0.000_1, 4.0, 8).expect("good buckets");
        let seconds = HistogramOpts::from(CALL_SECONDS.opts()).buckets(buckets);
        let this = Self {
            devices: gauge(&DEVICES),
            health_changes: counter(&HEALTH_CHANGES),
            registered: gauge(&REGISTERED),
            registrations: counter(&REGISTRATIONS),
            calls: counter(&CALLS),
            call_seconds: HistogramVec::new(seconds, CALL_SECONDS.labels).expect("a good name"),
            file_followed: IntGauge::with_opts(FILE_FOLLOWED.opts()).expect("a good name"),
            known: Mutex::default(),
            registry,
        };
        this.file_followed.set(1);
        let all: [Box<dyn Collector>; 7] = [
            Box::new(this.devices.clone()),
            Box::new(this.health_changes.clone()),
            Box::new(this.registered.clone()),
            Box::new(this.registrations.clone()),
            Box::new(this.calls.clone()),
            Box::new(this.call_seconds.clone()),
            Box::new(this.file_followed.clone()),
        ];
        for one in all {
            this.registry.register(one).expect("registered once");
        }
        this
    }

    /// What is offered now, and what of that is new.
    pub(crate) fn inventory(&self, inventory: &Inventory, news: &[News]) {
        self.file_followed.set(i64::from(inventory.follows_file()));
        self.offered(&inventory.catalogue(), news);
    }

    fn offered(&self, catalogue: &Catalogue, news: &[News]) {
        self.devices.reset();
        for name in catalogue.names() {
            let listed = catalogue.list(name);
            let healthy = listed.iter().filter(|l| l.healthy).count();
            for (health, count) in [("Healthy", healthy), ("Unhealthy", listed.len() - healthy)] {
                self.devices.with_label_values(&[name, health]).set(number(count));
            }
        }
        for one in news {
            match one {
                News::Health { resource, health: Health::Healthy, .. } => {
                    self.health_changes.with_label_values(&[resource.as_str(), "Recovered"]).inc();
                }
                News::Health { resource, health: Health::Unhealthy(causes), .. } => {
                    let reasons: BTreeSet<&str> =
                        causes.iter().map(pinion_device_plugin::Cause::reason).collect();
                    for reason in reasons {
                        self.health_changes.with_label_values(&[resource.as_str(), reason]).inc();
                    }
                }
                News::File(_) | News::Machine(_) | News::Problem(_) => {}
            }
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.0 = catalogue.names().map(str::to_owned).collect();
        let gone: Vec<String> = known.1.difference(&known.0).cloned().collect();
        for name in gone {
            known.1.remove(&name);
            let _ = self.registered.remove_label_values(&[&name]);
        }
    }

    /// What happened with the kubelet.
    pub(crate) fn kubelet(&self, event: &Event) {
        match event {
            Event::Registered { resource } => {
                self.registrations.with_label_values(&[resource.as_str(), "ok"]).inc();
                self.know(resource, true);
            }
            Event::NotRegistered { resource, error } => {
                self.registrations.with_label_values(&[resource.as_str(), error.reason()]).inc();
                self.know(resource, false);
            }
            Event::Forgotten { resource } => self.know(resource, false),
            Event::NoSocket { .. } => {}
            Event::Answered { resource, call, took, refused } => {
                let result = if refused.is_some() { "refused" } else { "ok" };
                self.calls.with_label_values(&[resource.as_str(), call.name(), result]).inc();
                self.call_seconds.with_label_values(&[call.name()]).observe(took.as_secs_f64());
            }
        }
    }

    /// Resources that the kubelet does not know of and should.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.difference(&known.1).cloned().collect()
    }

    /// The page; `None` where the library refuses it.
    pub(crate) fn text(&self) -> Option<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather()).ok()
    }

    fn know(&self, resource: &str, knows: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if knows {
            known.1.insert(resource.to_owned());
        } else {
            known.1.remove(resource);
        }
        self.registered.with_label_values(&[resource]).set(if knows { 1.0 } else { 0.0 });
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
const fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pinion_device_plugin::{Cause, Shared, UnitId};
    use pinion_kubelet::Call;

    use super::*;

    #[test]
    fn what_happened_is_counted_and_what_the_kubelet_does_not_know_is_named() {
        let metrics = Metrics::new();
        let [kvm, ..] = Shared::of_kubevirt();
        let catalogue = Catalogue { shared: vec![kvm], ..Catalogue::default() };
        let id = UnitId::Function("31:00.0".parse().unwrap());
        let health = Health::Unhealthy(vec![Cause::Gone(id)]);
        let news = News::Health { resource: "a.b/c".into(), id, health };
        metrics.offered(&catalogue, &[news]);
        assert_eq!(metrics.unknown(), ["devices.kubevirt.io/kvm"]);
        let resource = || "devices.kubevirt.io/kvm".to_owned();
        metrics.kubelet(&Event::Registered { resource: resource() });
        assert!(metrics.unknown().is_empty());
        let took = Duration::from_millis(1);
        metrics.kubelet(&Event::Answered { resource: resource(), call: Call::Allocate, took, refused: None });
        let text = metrics.text().unwrap();
        for line in [
            "pinion_device_plugin_devices{health=\"Unhealthy\",resource=\"devices.kubevirt.io/kvm\"} 1000",
            "pinion_device_plugin_health_changes_total{cause=\"Gone\",resource=\"a.b/c\"} 1",
            "pinion_device_plugin_registered{resource=\"devices.kubevirt.io/kvm\"} 1",
            "pinion_device_plugin_registrations_total{resource=\"devices.kubevirt.io/kvm\",result=\"ok\"} 1",
            "pinion_device_plugin_calls_total{call=\"Allocate\",resource=\"devices.kubevirt.io/kvm\",result=\"ok\"} 1",
            "pinion_device_plugin_call_seconds_count{call=\"Allocate\"} 1",
            "pinion_device_plugin_file_followed 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        metrics.offered(&Catalogue::default(), &[]);
        assert!(
            !metrics.text().unwrap().contains("pinion_device_plugin_registered{"),
            "what is gone is not told"
        );
    }

    #[test]
    fn the_page_names_all_of_them() {
        let page = include_str!("../../../docs/device-plugin-metrics.md");
        let repeat = "cargo run -q -p pinion-device-plugin-daemon --example device-plugin-metrics > docs/device-plugin-metrics.md";
        assert!(page == metrics_page(), "{repeat}");
    }
}
