//! The controller on a real API server, with nodes that are played.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first thing that is wrong"
)]

#[path = "../../../../api/tests/made/mod.rs"]
mod made;
mod objects;
mod played;
mod refusals;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::api::{DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use objects::objects;
use pinion_controller::{Options, Way, run};
use pinion_lab::Cache;
use pinion_lab_cluster::{Cluster, ClusterPrograms, Options as ClusterOptions};
use pinion_machine::CpuSet;
use pinion_nodes::LedgerSpec;
use pinion_reconcile::pod::LauncherImages;
use played::Script;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(60);
/// Cores of the played nodes; one of each is the host's.
const CORES: u32 = 17;
const NODES: [&str; 2] = ["node-a", "node-b"];

/// A cluster without a node of its own, and what plays on it.
struct Stage {
    cluster: Cluster,
    runtime: Runtime,
    client: Client,
    folder: tempfile::TempDir,
    script: Script,
}

/// One controller, until it is ended.
struct Replica {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), pinion_controller::RunError>>,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Stage {
    fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = ClusterOptions::of_nodes(0, &folder.path().join("cluster"));
        let cluster = Cluster::up(&options, &mut |_, _| ()).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let text = Kubeconfig::read_from(folder.path().join("cluster/kubeconfig")).unwrap();
        let wanted = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(text, &wanted);
        let config = runtime.block_on(config).unwrap();
        let client = {
            let _inside = runtime.enter();
            Client::try_from(config).unwrap()
        };
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds");
        let _ = cluster.kubectl(&["apply", "-k", &crds.display().to_string()]).unwrap();
        let _ = cluster
            .kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])
            .unwrap();
        let _ = cluster.kubectl(&["create", "namespace", "pinion-system"]).unwrap();
        let _ = cluster.kubectl(&["create", "namespace", "second"]).unwrap();
        let script = Script::default();
        runtime.block_on(async {
            for name in NODES {
                played::add(&client, name, CORES).await;
            }
        });
        let names = NODES.iter().map(ToString::to_string).collect();
        drop(runtime.spawn(played::play(client.clone(), names, script.clone())));
        Self { cluster, runtime, client, folder, script }
    }

    /// A controller. Two of different namespaces have leases of their own, so that both act.
    fn controller(&self, namespace: &str, with_webhook: bool) -> Replica {
        let port = free_port();
        let webhook = || (([127, 0, 0, 1], port).into(), Way::Url(format!("https://127.0.0.1:{port}")));
        let options = Options {
            namespace: namespace.to_owned(),
            replica: format!("replica-{port}"),
            launchers: LauncherImages {
                native: "pinion.dev/launcher:test".to_owned(),
                libvirt: "pinion.dev/launcher-libvirt:test".to_owned(),
            },
            pull_policy: "Never".to_owned(),
            pages: None,
            webhook: with_webhook.then(webhook),
            workers: 8,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let task = self.runtime.spawn(run(self.client.clone(), options, async move { drop(stopped.await) }));
        Replica { stop, task }
    }

    fn kubectl(&self, words: &[&str]) -> Result<String, String> {
        self.cluster.kubectl(words).map_err(|error| error.to_string())
    }

    fn apply(&self, text: &str) -> Result<String, String> {
        let file: PathBuf = self.folder.path().join("applied.yaml");
        std::fs::write(&file, text).unwrap();
        self.kubectl(&["apply", "-f", &file.display().to_string()])
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < SOON, "not in time: {what}\n{}", self.all());
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("{what} after {:.2} s", began.elapsed().as_secs_f32());
    }

    fn all(&self) -> String {
        let words = [
            &["get", "vm,vmi,vmirs,pods", "-A", "-o", "wide"][..],
            &["get", "nodeledgers", "-o", "jsonpath={.items[*].spec}"],
            &["get", "events", "-A"],
            &["get", "nodes", "-o", "jsonpath={.items[*].spec.taints}"],
        ];
        words.map(|words| self.kubectl(words).unwrap_or_else(|error| error)).join("\n")
    }

    fn field(&self, kind: &str, name: &str, path: &str) -> String {
        self.kubectl(&["get", kind, name, "-o", &format!("jsonpath={{{path}}}")]).unwrap_or_default()
    }

    fn list(&self, group: &str, version: &str, kind: &str, namespace: &str) -> Vec<DynamicObject> {
        let api = objects(&self.client, group, version, kind, namespace);
        self.runtime.block_on(api.list(&ListParams::default())).unwrap().items
    }

    fn bookings(&self) -> BTreeMap<String, LedgerSpec> {
        let of = |ledger: &DynamicObject| {
            let spec = ledger.data.get("spec").cloned().unwrap_or_default();
            (ledger.name_any(), serde_json::from_value(spec).unwrap_or_default())
        };
        self.list("pinion.dev", "v1alpha1", "NodeLedger", "").iter().map(of).collect()
    }

    fn booked(&self) -> usize {
        self.bookings().values().map(|ledger| ledger.bookings.len()).sum()
    }

    fn phases(&self) -> BTreeMap<String, usize> {
        let mut phases = BTreeMap::new();
        for instance in self.list("kubevirt.io", "v1", "VirtualMachineInstance", "default") {
            let phase = instance.data.pointer("/status/phase").and_then(Value::as_str).unwrap_or("none");
            *phases.entry(phase.to_owned()).or_default() += 1;
        }
        phases
    }

    fn running(&self) -> usize {
        self.phases().get("Running").copied().unwrap_or(0)
    }

    /// Nothing is left of any guest.
    fn is_empty(&self) -> bool {
        let none = |kind| self.list("kubevirt.io", "v1", kind, "default").is_empty();
        none("VirtualMachine")
            && none("VirtualMachineInstance")
            && self.list("", "v1", "Pod", "default").is_empty()
            && self.booked() == 0
    }

    fn clear(&self) {
        let kinds = "virtualmachines,virtualmachineinstancereplicasets,virtualmachineinstances";
        let _ = self.kubectl(&["delete", kinds, "--all", "--wait=false"]);
        self.until("all gone", || self.is_empty());
    }
}

impl Replica {
    fn end(self, stage: &Stage) {
        let _ = self.stop.send(());
        stage.runtime.block_on(self.task).unwrap().unwrap();
    }

    /// As SIGKILL does: nothing is given back, not even the lease.
    fn kill(self, stage: &Stage) {
        self.task.abort();
        let _ = stage.runtime.block_on(self.task);
    }
}

fn machine(name: &str, cores: u32) -> String {
    format!(
        "---\napiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {{name: {name}}}\nspec:\n  runStrategy: Always\n  \
         template:\n    spec:\n{}",
        indent(&spec(cores), 6)
    )
}

fn instance(name: &str, cores: u32) -> String {
    format!(
        "---\napiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {{name: {name}}}\nspec:\n{}",
        indent(&spec(cores), 2)
    )
}

fn spec(cores: u32) -> String {
    format!(
        "terminationGracePeriodSeconds: 0\ndomain:\n  cpu: {{cores: {cores}, dedicatedCpuPlacement: true}}\n  memory: {{guest: \
         64Mi}}\n  firmware: {{kernelBoot: {{container: {{image: example.com/kernel, kernelPath: /vmlinuz}}}}}}\n  devices: \
         {{}}\n"
    )
}

fn indent(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

#[test]
fn kubevirts_objects_are_served_on_a_real_api_server() {
    if !ClusterPrograms::are_ready(&Cache::of_user()) {
        println!("skipped: Kubernetes is not built here: `cargo xtask setup --cluster` builds it");
        return;
    }
    let stage = Stage::up();
    let controller = stage.controller("pinion-system", true);
    admission_is_asked(&stage);
    refusals::everything_that_is_refused_is_told(&stage);
    a_machine_runs_and_goes(&stage);
    what_fits_nowhere_waits(&stage);
    a_pod_that_is_turned_away_is_replaced(&stage);
    who_fails_is_made_anew(&stage);
    replicas(&stage);
    controller.end(&stage);
    let _ = stage.kubectl(&[
        "delete",
        "validatingwebhookconfiguration,mutatingwebhookconfiguration",
        "pinion-webhook",
    ]);
    two_controllers_never_book_a_place_twice(&stage);
    a_controller_that_is_killed_again_and_again_leaves_nothing(&stage);
    beside_kubevirt_it_does_not_run(&stage);
}

/// Every problem of a spec comes back from `kubectl apply`, by its field; an instance stays what it is.
fn admission_is_asked(stage: &Stage) {
    let bundle = || {
        stage.field("validatingwebhookconfiguration", "pinion-webhook", ".webhooks[0].clientConfig.caBundle")
    };
    stage.until("the webhook has its certificate", || !bundle().is_empty());
    stage.until("a wrong spec is refused", || {
        stage
            .apply(&machine("wrong", 1).replace("cores: 1", "coers: 1, threads: 3, cores: 1"))
            .is_err_and(|error| error.contains("did you mean"))
    });
    let wrong = machine("wrong", 1)
        .replace("cores: 1", "coers: 1")
        .replace("devices: {}", "devices: {watchdogs: {}}")
        .replace("runStrategy: Always", "runStrategy: WaitAsReceiver");
    let error = stage.apply(&wrong).unwrap_err();
    for said in [
        "spec.runStrategy: ",
        "there is no live migration",
        "spec.template.spec.domain.cpu.coers: ",
        "did you mean \"cores\"?",
        "spec.template.spec.domain.devices.watchdogs: ",
    ] {
        assert!(error.contains(said), "{said}: {error}");
    }
    let _ = stage.apply(&instance("fixed", 1)).unwrap();
    let again = stage.apply(&instance("fixed", 1)).unwrap();
    assert!(again.contains("unchanged"), "{again}");
    assert_eq!(stage.field("vmi", "fixed", ".spec.domain.devices.interfaces[0].name"), "default");
    let error = stage.apply(&instance("fixed", 2)).unwrap_err();
    assert!(error.contains("spec: ") && error.contains("a guest stays what it was started as"), "{error}");
    let _ = stage.kubectl(&["label", "vmi", "fixed", "colour=red"]).unwrap();
    stage.clear();
}

fn a_machine_runs_and_goes(stage: &Stage) {
    let _ = stage.apply(&machine("web", 2)).unwrap();
    stage.until("a machine runs", || stage.field("vm", "web", ".status.printableStatus") == "Running");
    let shown = stage.kubectl(&["get", "vmi", "web", "-o", "wide"]).unwrap();
    for word in ["Running", "10.244.0.9", "node-", "True"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let condition =
        |kind: &str| stage.field("vm", "web", &format!(".status.conditions[?(@.type=='{kind}')].status"));
    stage.until("the machine is ready", || {
        condition("Ready") == "True" && condition("Deterministic") == "True"
    });
    let pods = stage.list("", "v1", "Pod", "default");
    assert_eq!(pods.len(), 1);
    let node = pods[0].data.pointer("/spec/nodeName").and_then(Value::as_str).unwrap().to_owned();
    assert_eq!(stage.bookings()[&node].bookings.len(), 1);
    let on_node =
        stage.kubectl(&["get", "vmi", "-l", &format!("kubevirt.io/nodeName={node}"), "-o", "name"]).unwrap();
    assert_eq!(on_node.lines().count(), 1, "{on_node}");
    let events = stage.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).unwrap();
    assert!(events.contains("SuccessfulCreate") && events.contains("Started"), "{events}");
    // Nobody writes where nothing changes.
    let version = || stage.field("vmi", "web", ".metadata.resourceVersion");
    let before = version();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(version(), before);
    let halt = r#"{"spec": {"runStrategy": "Halted"}}"#;
    let _ = stage.kubectl(&["patch", "vm", "web", "--type=merge", "-p", halt]).unwrap();
    stage.until("a machine is halted", || stage.field("vm", "web", ".status.printableStatus") == "Stopped");
    assert_eq!(stage.booked(), 0);
    stage.clear();
}

/// What no node can take is explained per node at once, and starts when there is room.
fn what_fits_nowhere_waits(stage: &Stage) {
    let _ = stage.apply(&[machine("full-a", CORES - 1), machine("full-b", CORES - 1)].concat()).unwrap();
    stage.until("two machines fill both nodes", || stage.running() == 2);
    let began = Instant::now();
    let _ = stage.apply(&machine("late", 4)).unwrap();
    stage.until("a third is explained", || {
        stage.field("vm", "late", ".status.printableStatus") == "ErrorUnschedulable"
    });
    println!("explained {:.2} s after it was applied", began.elapsed().as_secs_f32());
    let why = stage.field("vmi", "late", ".status.conditions[?(@.type=='PodScheduled')].message");
    for said in ["0 of 2 nodes can take it", "* node-a: ", "* node-b: ", "default/full-"] {
        assert!(why.contains(said), "{said}: {why}");
    }
    assert_eq!(stage.list("", "v1", "Pod", "default").len(), 2);
    let _ = stage.kubectl(&["delete", "vm", "full-a", "--wait=false"]).unwrap();
    stage.until("there is room", || stage.field("vm", "late", ".status.printableStatus") == "Running");
    stage.clear();
}

fn a_pod_that_is_turned_away_is_replaced(stage: &Stage) {
    // The first choice is the first by name, where all else is the same.
    stage.script.turn_away.lock().unwrap().insert("node-a".into(), "TopologyAffinityError".into());
    let _ = stage.apply(&instance("moved", 2)).unwrap();
    stage.until("a guest runs elsewhere", || stage.field("vmi", "moved", ".status.phase") == "Running");
    assert_eq!(stage.field("vmi", "moved", ".status.nodeName"), "node-b");
    stage.script.turn_away.lock().unwrap().clear();
    stage.clear();
}

fn who_fails_is_made_anew(stage: &Stage) {
    let _ = stage.apply(&machine("crash", 2)).unwrap();
    stage.until("it runs", || stage.running() == 1);
    let first = stage.field("vmi", "crash", ".metadata.uid");
    stage.script.end.lock().unwrap().insert("crash".into(), 11);
    stage.until("it waits", || stage.field("vm", "crash", ".status.printableStatus") == "CrashLoopBackOff");
    assert_eq!(stage.field("vm", "crash", ".status.startFailure.consecutiveFailCount"), "1");
    stage.script.end.lock().unwrap().clear();
    stage.until("it runs again", || stage.running() == 1);
    assert_ne!(stage.field("vmi", "crash", ".metadata.uid"), first);
    stage.clear();
}

fn replicas(stage: &Stage) {
    let set = format!(
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstanceReplicaSet\nmetadata: {{name: set}}\nspec:\n  replicas: 3\n  \
         selector: {{matchLabels: {{app: set}}}}\n  template:\n    metadata: {{labels: {{app: set}}}}\n    spec:\n{}",
        indent(&spec(2), 6)
    );
    let _ = stage.apply(&set).unwrap();
    let ready = || stage.field("vmirs", "set", ".status.readyReplicas");
    stage.until("three are ready", || ready() == "3");
    let _ = stage.kubectl(&["scale", "vmirs", "set", "--replicas=1"]).unwrap();
    stage.until("one is left", || ready() == "1" && stage.phases().values().sum::<usize>() == 1);
    stage.clear();
}

/// Fifty compete for room for thirty-two, and two controllers act that know nothing of each other.
fn two_controllers_never_book_a_place_twice(stage: &Stage) {
    let both = [stage.controller("pinion-system", false), stage.controller("second", false)];
    let many: String = (0..50).map(|number| instance(&format!("g{number:02}"), 1)).collect();
    let _ = stage.apply(&many).unwrap();
    let room = usize::try_from(2 * (CORES - 1)).unwrap();
    stage.until("all room is taken", || stage.running() == room);
    std::thread::sleep(Duration::from_secs(1));
    no_cpu_is_booked_twice(stage);
    assert_eq!((stage.booked(), stage.running()), (room, room));
    let pods = stage.list("", "v1", "Pod", "default");
    let owners: BTreeSet<String> =
        pods.iter().map(|pod| pod.labels()["kubevirt.io/created-by"].clone()).collect();
    assert_eq!((pods.len(), owners.len()), (room, room));
    stage.clear();
    both.into_iter().for_each(|controller| controller.end(stage));
}

fn no_cpu_is_booked_twice(stage: &Stage) {
    for (node, ledger) in stage.bookings() {
        let mut taken = CpuSet::new();
        for booking in &ledger.bookings {
            assert!(taken.is_disjoint(&booking.holding.cpus), "{node}: {}", booking.holding.owner);
            taken = taken.union(&booking.holding.cpus);
        }
    }
}

/// It is killed at whatever point it has come to; the next goes on. Its lease runs out, or here: each has its own.
fn a_controller_that_is_killed_again_and_again_leaves_nothing(stage: &Stage) {
    let namespaces: Vec<String> = (0..9).map(|number| format!("life-{number}")).collect();
    for namespace in &namespaces {
        let _ = stage.kubectl(&["create", "namespace", namespace]).unwrap();
    }
    let lives = |from: usize, to: usize| {
        for (number, namespace) in namespaces[from..to].iter().enumerate() {
            let controller = stage.controller(namespace, false);
            std::thread::sleep(Duration::from_millis(150 + 90 * u64::try_from(number).unwrap()));
            controller.kill(stage);
        }
    };
    let many: String = (0..10).map(|number| machine(&format!("m{number}"), 2)).collect();
    let _ = stage.apply(&many).unwrap();
    lives(0, 4);
    let last = stage.controller(&namespaces[4], false);
    stage.until("all run", || stage.running() == 10);
    no_cpu_is_booked_twice(stage);
    assert_eq!(stage.list("", "v1", "Pod", "default").len(), 10);
    last.kill(stage);
    let _ = stage.kubectl(&["delete", "vm", "--all", "--wait=false"]).unwrap();
    lives(5, 8);
    let last = stage.controller(&namespaces[8], false);
    stage.until("nothing is left", || stage.is_empty());
    last.end(stage);
}

fn beside_kubevirt_it_does_not_run(stage: &Stage) {
    let kubevirt = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: \
        kubevirts.kubevirt.io}\nspec:\n  group: kubevirt.io\n  scope: Namespaced\n  names: {plural: kubevirts, singular: \
        kubevirt, kind: KubeVirt}\n  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: \
        object}}}]\n";
    let _ = stage.apply(kubevirt).unwrap();
    let controller = stage.controller("pinion-system", true);
    let ended = stage.runtime.block_on(controller.task).unwrap().unwrap_err().to_string();
    assert!(ended.contains("KubeVirt is installed on this cluster"), "{ended}");
    let hooks = stage.kubectl(&["get", "validatingwebhookconfigurations", "-o", "name"]).unwrap();
    assert!(!hooks.contains("pinion"), "{hooks}");
}
