//! A cluster of one lab host with Pinion's image in it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pinion_lab::{Cache, Lab, Programs};
use pinion_lab_cluster::{Cluster, ClusterPrograms, Options};
use pinion_oci::Image;
use serde_json::Value;

/// Long enough for a pod on an emulated node of a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(180);
/// Long enough for news to go from a node to the API server, which it is told every two seconds.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// As the manifests have it.
pub(crate) const IMAGE: &str = concat!("pinion.dev/pinion:", env!("CARGO_PKG_VERSION"));

/// Brings up a cluster and tests on it, where Kubernetes' own programs are there.
pub(crate) fn on_cluster(name: &str, test: impl FnOnce(&Cluster)) {
    if !ClusterPrograms::are_ready(&Cache::of_user()) {
        println!("skipped: Kubernetes is not built here: `cargo xtask setup --cluster` builds it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("pinion.tar");
    let program = Programs::built().unwrap().path("pinion");
    Image::of_program(IMAGE, "/usr/bin/pinion", &program).unwrap().write(&archive).unwrap();
    let mut options = Options::of_nodes(1, folder.path());
    options.files.push(("/var/lib/pinion/images/pinion.tar".into(), archive));
    let mut told =
        |what: &str, after: Duration| println!("{name}: {what} after {:.1} s", after.as_secs_f32());
    let cluster = Cluster::up(&options, &mut told).unwrap();
    let _report = Report(&cluster);
    test(&cluster);
}

/// Prints what people would look at first, where the test fails.
struct Report<'a>(&'a Cluster);

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for words in [
            &["get", "pods", "--all-namespaces", "-o", "wide"][..],
            &["get", "events", "--all-namespaces"],
            &[
                "logs",
                "-n",
                "pinion-system",
                "-l",
                "app.kubernetes.io/name=pinion-device-plugin",
                "--tail=50",
            ],
        ] {
            println!("{words:?}: {}", self.0.kubectl(words).unwrap_or_else(|e| e.to_string()));
        }
        let logs = self.0.nodes().first().map(|lab| lab.sh("tail -n 40 /var/log/*.log", SOON));
        println!(
            "{}",
            logs.map(|done| done.map_or_else(|e| e.to_string(), |done| done.text())).unwrap_or_default()
        );
    }
}

/// Applies a manifest.
pub(crate) fn apply(cluster: &Cluster, manifest: &str) {
    let mut command = cluster.command();
    command.args(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), manifest.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{manifest}");
}

/// `kubectl` in the folder of the workspace, where the manifests are.
pub(crate) fn in_workspace(cluster: &Cluster, words: &[&str]) {
    let mut command: Command = cluster.command();
    let done =
        command.args(words).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The node.
pub(crate) struct Node<'a> {
    cluster: &'a Cluster,
    lab: &'a Lab,
}

impl<'a> Node<'a> {
    pub(crate) fn first(cluster: &'a Cluster) -> Self {
        Self { cluster, lab: &cluster.nodes()[0] }
    }

    /// Runs a script that must succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        self.sh_within(script, SOON)
    }

    /// The same, for one that may take its time.
    pub(crate) fn sh_within(&self, script: &str, limit: Duration) -> String {
        let done = self.lab.sh(script, limit).unwrap();
        assert!(done.success(), "`{script}`: {}{}", done.text(), done.error_text());
        done.text()
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        self.sh(&format!("mkdir -p \"$(dirname {path})\""));
        self.lab.put(path, text.as_bytes(), 0o755).unwrap();
    }

    /// Tells QEMU something.
    pub(crate) fn monitor(&self, command: &str) {
        let said = self.lab.monitor(command).unwrap();
        assert!(!said.contains("Error"), "{said}");
    }

    /// Gives a function to vfio-pci.
    pub(crate) fn bind(&self, function: &str) {
        let at = format!("/sys/bus/pci/devices/{function}");
        self.sh(&format!(
            "echo vfio-pci > {at}/driver_override; [ ! -e {at}/driver ] || echo {function} > {at}/driver/unbind; \
             echo {function} > /sys/bus/pci/drivers_probe; [ -e {at}/driver ]"
        ));
    }

    /// Takes its driver away.
    pub(crate) fn unbind(&self, function: &str) {
        self.sh(&format!("echo {function} > /sys/bus/pci/devices/{function}/driver/unbind"));
    }

    /// Waits until the node tells the API server of so many of each resource.
    pub(crate) fn until_allocatable(&self, wanted: &[(&str, &str)]) {
        let has = |text: &str| {
            let node: Value = serde_json::from_str(text).unwrap_or_default();
            let all = &node["status"]["allocatable"];
            wanted.iter().all(|(name, count)| all[name].as_str() == Some(count))
        };
        let shown = ["get", "node", "node-1", "-o", "json"];
        if let Err(e) = self.cluster.until(&shown, LONG, has) {
            let allocatable =
                self.cluster.kubectl(&["get", "node", "node-1", "-o", "jsonpath={.status.allocatable}"]);
            panic!("{wanted:?}: {allocatable:?}: {e:.60}");
        }
    }

    /// How often the kubelet that runs now was told of a resource.
    pub(crate) fn registrations(&self, resource: &str) -> u64 {
        let metrics = self.cluster.kubectl(&["get", "--raw", METRICS]).unwrap_or_default();
        registrations(&metrics, resource)
    }

    /// Waits until the kubelet was told of each resource more often than that.
    pub(crate) fn until_registered(&self, resources: &[(&str, u64)]) {
        let all = |text: &str| resources.iter().all(|(name, before)| registrations(text, name) > *before);
        self.cluster.until(&["get", "--raw", METRICS], LONG, all).map(drop).unwrap_or_else(|e| {
            let text = e.to_string();
            let lines: Vec<&str> =
                text.split("\\n").filter(|l| l.contains("device_plugin_registration")).collect();
            panic!("{resources:?}: {lines:?}");
        });
    }
}

const METRICS: &str = "/api/v1/nodes/node-1/proxy/metrics";

fn registrations(metrics: &str, resource: &str) -> u64 {
    let line = format!("kubelet_device_plugin_registration_total{{resource_name=\"{resource}\"}} ");
    metrics.lines().find_map(|l| l.strip_prefix(&line)?.trim().parse().ok()).unwrap_or(0)
}
