//! The publisher on a real API server, with a node that is played.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is wrong")]

mod stage;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pinion_api::Document;
use pinion_lab::Cache;
use pinion_lab_cluster::{Cluster, ClusterPrograms, Options as ClusterOptions};
use pinion_node_agent::PublishOutcome;
use pinion_nodes::{Books, GuestPhase, LedgerSpec, LedgerStatus};
use pinion_publisher::{FIELD_MANAGER, Options, Sources, publish};
use serde_json::Value;
use stage::PlayedNode;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

const SOON: Duration = Duration::from_secs(60);
const NODE: &str = "node-a";
/// The page that says what the agent must be allowed.
const DOCUMENTATION: &str = include_str!("../../../../docs/agent.md");
const USER: &str = "system:serviceaccount:pinion-system:pinion-agent";
const SPEC: &str = r#"{"spec": {"bookings": [{"uid": "u", "request": {"a": 1}, "holding": {}, "since": "2026-11-22T00:00:00Z"}]}}"#;

/// A cluster without a node of its own.
struct Stage {
    cluster: Cluster,
    runtime: Runtime,
    config: Config,
    folder: tempfile::TempDir,
}

impl Stage {
    fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = ClusterOptions::of_nodes(0, &folder.path().join("cluster"));
        let cluster = Cluster::up(&options, &mut |_, _| ()).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let text = Kubeconfig::read_from(folder.path().join("cluster/kubeconfig")).unwrap();
        let config =
            runtime.block_on(Config::from_custom_kubeconfig(text, &KubeConfigOptions::default())).unwrap();
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds/nodeledgers.yaml");
        let stage = Self { cluster, runtime, config, folder };
        let _ = stage.kubectl(&["apply", "-f", &crds.display().to_string()]).unwrap();
        let _ =
            stage.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).unwrap();
        let node = format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {NODE}, labels: {{kubernetes.io/os: linux}}}}\n"
        );
        let rules = DOCUMENTATION.split("```yaml\nrules:").nth(1).unwrap().split("```").next().unwrap();
        let role = format!(
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: pinion-agent}}\nrules:{rules}---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: pinion-agent}}\nroleRef: \
             {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: pinion-agent}}\nsubjects:\n- {{apiGroup: \
             rbac.authorization.k8s.io, kind: User, name: \"{USER}\"}}\n"
        );
        let file = stage.folder.path().join("node.yaml");
        std::fs::write(&file, node + &role).unwrap();
        let _ = stage.kubectl(&["apply", "-f", &file.display().to_string()]).unwrap();
        stage
    }

    fn kubectl(&self, words: &[&str]) -> Result<String, String> {
        self.cluster.kubectl(words).map_err(|error| error.to_string())
    }

    fn ledger(&self) -> Value {
        let text = self.kubectl(&["get", "nodeledger", NODE, "-o", "json", "--show-managed-fields"]);
        text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    fn status(&self) -> LedgerStatus {
        let status = self.ledger().get("status").cloned().unwrap_or_default();
        serde_json::from_value(status).unwrap_or_default()
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < SOON, "not in time: {what}: {:#}", self.ledger());
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("{what} after {:.2} s", began.elapsed().as_secs_f32());
    }
}

/// Passes connections on to the API server while it is told that there is a way, and breaks them when there is none.
fn way(to: SocketAddr, is_open: Arc<AtomicBool>) -> (SocketAddr, impl Future<Output = ()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let pass = async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (mut here, _) = listener.accept().await.unwrap();
            let is_open = Arc::clone(&is_open);
            drop(tokio::spawn(async move {
                let closed = async {
                    while is_open.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                };
                let copy = async {
                    let mut there = TcpStream::connect(to).await.unwrap();
                    let _ = copy_bidirectional(&mut here, &mut there).await;
                };
                tokio::select! {
                    () = closed => {}
                    () = copy => {}
                }
            }));
        }
    };
    (address, pass)
}

#[test]
fn a_node_is_published_to_a_real_api_server() {
    if !ClusterPrograms::are_ready(&Cache::of_user()) {
        println!("skipped: Kubernetes is not built here: `cargo xtask setup --cluster` builds it");
        return;
    }
    let (stage, mut node) = (Stage::up(), PlayedNode::new());
    node.count();
    node.facts(&[("pinion.dev/smt", "true"), ("pinion.dev/packages", "1")]);
    let is_open = Arc::new(AtomicBool::new(true));
    let url = stage.config.cluster_url.clone();
    let to: SocketAddr = format!("{}:{}", url.host().unwrap(), url.port_u16().unwrap()).parse().unwrap();
    let (address, pass) = way(to, Arc::clone(&is_open));
    let mut config = stage.config.clone();
    config.cluster_url = format!("https://{address}/").parse().unwrap();
    // It is allowed what its documentation asks for, and nothing else.
    config.auth_info.impersonate = Some(USER.to_owned());
    config.tls_server_name = Some(url.host().unwrap().to_owned());
    let options = Options {
        node: NODE.into(),
        sources: Sources { kvm: node.path("kvm"), ..Sources::of(&node.ledger(), &node.pods()) },
        published: Arc::default(),
        tell: Arc::new(|text| println!("{text}")),
    };
    let published = Arc::clone(&options.published);
    drop(stage.runtime.spawn(pass));
    let client = {
        let _inside = stage.runtime.enter();
        Client::try_from(config).unwrap()
    };
    drop(stage.runtime.spawn(publish(client, options)));
    the_ledger_is_there(&stage);
    labels_are_its_own(&stage, &node);
    let _ = stage.kubectl(&["patch", "nodeledger", NODE, "--type=merge", "-p", SPEC]).unwrap();
    let spec = stage.ledger()["spec"].clone();
    assert_eq!(spec["bookings"][0]["uid"], "u");
    let guest = guests_are_reported(&stage, &mut node);
    // The API server is away for a while.
    is_open.store(false, Ordering::Relaxed);
    let refused = || published.total(PublishOutcome::Unanswered);
    guest.says("Running", "drifted");
    stage.until("it is missed", || refused() > 1);
    let other = node.guest("b", "4-5");
    other.says("Running", "holds");
    assert_eq!(stage.status().guests[0].verdict, "holds");
    is_open.store(true, Ordering::Relaxed);
    stage.until("the newest is there", || stage.status().guests.len() == 2);
    assert_eq!(stage.status().guests[0].verdict, "drifted");
    guest.end();
    other.end();
    stage.until("both are gone", || stage.status().guests.is_empty());
    assert_eq!(stage.ledger()["spec"], spec, "bookings are the controller's");
    let _ = stage.kubectl(&["delete", "nodeledger", NODE]).unwrap();
    node.count();
    stage.until("it is made anew", || stage.status().generation == 4);
}

fn the_ledger_is_there(stage: &Stage) {
    stage.until("the ledger is there", || stage.status().generation == 1);
    let status = stage.status();
    assert_eq!((status.housekeeping.to_string(), status.obstacles.len()), ("0-1".to_owned(), 0));
    assert_eq!(status.holdings.iter().map(|h| h.owner.as_str()).collect::<Vec<_>>(), ["pod/lab/db"]);
    let ledger = stage.ledger();
    let managers: Vec<&Value> =
        ledger["metadata"]["managedFields"].as_array().unwrap().iter().map(|m| &m["manager"]).collect();
    assert!(managers.iter().all(|manager| *manager == FIELD_MANAGER), "{managers:?}");
    // Who books plans on it: CPUs 2 to 6 are free, and with them two whole cores.
    let books = Books::of(&LedgerSpec::default(), &status).unwrap();
    let wants = |cores: u32| {
        let spec = format!(
            "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {{name: a}}\nspec: {{domain: {{cpu: {{cores: \
             {cores}, dedicatedCpuPlacement: true}}, memory: {{guest: 64Mi}}, devices: {{}}, firmware: {{kernelBoot: \
             {{container: {{image: \"file:///boot\", kernelPath: /vmlinuz}}}}}}}}}}\n"
        );
        let documents = pinion_api::parse(spec).unwrap();
        let instance = documents.into_iter().map(Document::into_instance).next().unwrap();
        books.plan(&books.request(&instance).unwrap())
    };
    assert_eq!(wants(4).unwrap().dedicated_cpus().to_string(), "2-5");
    assert!(wants(5).is_err());
}

fn labels_are_its_own(stage: &Stage, node: &PlayedNode) {
    let labels = || stage.kubectl(&["get", "node", NODE, "-o", "jsonpath={.metadata.labels}"]).unwrap();
    stage.until("there are labels", || labels().contains("pinion.dev/smt"));
    node.facts(&[("pinion.dev/smt", "false")]);
    stage.until("one is another, and one is gone", || {
        labels().contains(r#""pinion.dev/smt":"false""#) && !labels().contains("pinion.dev/packages")
    });
    assert!(labels().contains("kubernetes.io/os"), "{}", labels());
}

fn guests_are_reported(stage: &Stage, node: &mut PlayedNode) -> stage::PlayedGuest {
    let guest = node.guest("a", "2-3");
    stage.until("a guest starts", || stage.status().guests.len() == 1);
    assert_eq!(stage.status().guests[0].phase, GuestPhase::Starting);
    guest.says("Running", "holds");
    stage.until("it runs", || stage.status().guests[0].phase == GuestPhase::Running);
    let report = stage.status().guests[0].clone();
    assert_eq!((report.pod_uid.as_str(), report.verdict.as_str()), ("uid-a", "holds"));
    guest
}
