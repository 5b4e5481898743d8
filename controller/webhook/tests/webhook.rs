//! The webhook asked by a real API server: two replicas with certificates that live for seconds.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is wrong")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pinion_lab::Cache;
use pinion_lab_cluster::{Cluster, ClusterPrograms, Options};
use pinion_webhook::{
    AdmissionRequest, Event, FieldCause, Hook, Limits, Lives, Metrics, Verdict, Wish, inject, run,
};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

const SOON: Duration = Duration::from_secs(60);
const BUNDLE: &str = "jsonpath={.webhooks[0].clientConfig.caBundle}";

/// An authority for 36 s is followed after 24 s, and its successor signs 6 s later.
const LIVES: Lives =
    Lives { authority: SignedDuration::from_secs(36), serving: SignedDuration::from_secs(6) };

fn rules(hook: Hook, request: &AdmissionRequest) -> Verdict {
    let object = request.object.as_ref();
    let colour = object.and_then(|o| o.pointer("/data/colour")).and_then(|c| c.as_str()).unwrap_or_default();
    match (hook, colour) {
        (Hook::Validate, "red") => {
            let cause = FieldCause {
                reason: "FieldValueInvalid".into(),
                message: "red is taken".into(),
                field: "data.colour".into(),
            };
            Verdict::invalid(format!("data.colour of {} is red, which is taken", request.name), vec![cause])
        }
        (Hook::Validate, "black") => Verdict::forbidden("black is for others"),
        (Hook::Mutate, "") => Verdict {
            patch: vec![json!({"op": "add", "path": "/data", "value": {"colour": "green"}})],
            warnings: vec!["a colour was chosen".into()],
            ..Verdict::allowed()
        },
        _ => Verdict::allowed(),
    }
}

/// One replica, until it is ended.
struct Replica {
    address: SocketAddr,
    metrics: Metrics,
    told: Arc<Mutex<String>>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Replica {
    fn start(runtime: &Runtime, client: &Client) -> Self {
        let options = pinion_webhook::Options {
            address: "127.0.0.1:0".parse().unwrap(),
            namespace: "default".into(),
            secret: "pinion-webhook".into(),
            wish: Wish::new(&["127.0.0.1", "pinion-webhook.pinion-system.svc"], LIVES).unwrap(),
            configurations: vec![(Hook::Validate, "pinion".into()), (Hook::Mutate, "pinion".into())],
            limits: Limits::default(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, address) = std::sync::mpsc::channel();
        let told = Arc::new(Mutex::new(String::new()));
        let telling = Arc::clone(&told);
        let tell = Arc::new(move |event: &Event| writeln!(telling.lock().unwrap(), "{event}").unwrap());
        let (client, metrics) = (client.clone(), Metrics::new());
        let parts = (metrics.clone(), Arc::new(Timestamp::now) as _, tell as _);
        let task = runtime.spawn(async move {
            let ready = move |at| ready.send(at).unwrap();
            let stop = async move { drop(stopped.await) };
            run(client, options, Arc::new(rules), parts, ready, stop).await.unwrap();
        });
        Self { address: address.recv().unwrap(), metrics, told, stop, task }
    }

    fn told(&self) -> String {
        self.told.lock().unwrap().clone()
    }

    fn count(&self, metric: &str) -> f64 {
        let text = self.metrics.text().unwrap();
        text.lines().find_map(|l| l.strip_prefix(metric)).map_or(0.0, |v| v.trim().parse().unwrap())
    }
}

fn configurations(cluster: &Cluster, folder: &Path, address: SocketAddr) {
    let of = |kind: &str, hook: &str| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "pinion"},
            "webhooks": [{
                "name": format!("{hook}.pinion.dev"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"url": format!("https://{address}/{hook}")}, "failurePolicy": "Fail",
                "objectSelector": {"matchLabels": {"asked": hook}}, "timeoutSeconds": 5,
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
                    "operations": ["CREATE", "UPDATE"]}],
            }],
        })
    };
    let items =
        [of("ValidatingWebhookConfiguration", "validate"), of("MutatingWebhookConfiguration", "mutate")];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let file = folder.join("configurations.json");
    std::fs::write(&file, list.to_string()).unwrap();
    let _ = cluster.kubectl(&["apply", "-f", &file.display().to_string()]).unwrap();
}

/// Makes or changes a config map that one of the hooks is asked for.
fn apply(cluster: &Cluster, folder: &Path, name: &str, hook: &str, data: &str) -> Result<String, String> {
    let file = folder.join(format!("{name}.yaml"));
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{asked: {hook}}}}}\n{data}\n"
    );
    std::fs::write(&file, text).unwrap();
    cluster.kubectl(&["apply", "-f", &file.display().to_string()]).map_err(|e| e.to_string())
}

fn client(runtime: &Runtime, cluster: &Path) -> Client {
    let text = Kubeconfig::read_from(cluster.join("kubeconfig")).unwrap();
    let options = KubeConfigOptions::default();
    let config = runtime.block_on(Config::from_custom_kubeconfig(text, &options)).unwrap();
    // The client has tasks of its own.
    let _inside = runtime.enter();
    Client::try_from(config).unwrap()
}

#[test]
fn an_api_server_is_answered_while_certificates_and_authorities_are_replaced() {
    if !ClusterPrograms::are_ready(&Cache::of_user()) {
        println!("skipped: Kubernetes is not built here: `cargo xtask setup --cluster` builds it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path();
    // An API server is all that it takes.
    let cluster = Cluster::up(&Options::of_nodes(0, &files.join("cluster")), &mut |_, _| ()).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = client(&runtime, &files.join("cluster"));
    // Both begin before there is a Secret, or a configuration.
    let replicas = [Replica::start(&runtime, &client), Replica::start(&runtime, &client)];
    configurations(&cluster, files, replicas[0].address);
    let injected =
        |kind: &str| cluster.until(&["get", kind, "pinion", "-o", BUNDLE], SOON, |t| !t.is_empty());
    let begin = injected("validatingwebhookconfiguration").unwrap();
    assert_eq!(injected("mutatingwebhookconfiguration").unwrap(), begin, "both replicas have one authority");

    judged(&cluster, files);
    overwritten(&cluster, &runtime, &client);
    rotated(&cluster, files, &begin, &replicas);
    damaged(&cluster, files, &replicas);
    down(&cluster, files, &runtime, replicas);
}

/// The API server passes on what the rules say.
fn judged(cluster: &Cluster, folder: &Path) {
    let good = "data: {colour: blue}";
    // The API server learns of a configuration a moment later than its clients.
    let end = Instant::now() + SOON;
    while apply(cluster, folder, "red", "validate", "data: {colour: red}").is_ok() {
        assert!(Instant::now() < end, "it never asks");
        let _ = cluster.kubectl(&["delete", "configmap", "red"]).unwrap();
    }
    let _ = apply(cluster, folder, "blue", "validate", good).unwrap();
    let error = apply(cluster, folder, "red", "validate", "data: {colour: red}").unwrap_err();
    assert!(error.contains("The ConfigMap \"red\" is invalid: data.colour: red is taken"), "{error}");
    let error = apply(cluster, folder, "black", "validate", "data: {colour: black}").unwrap_err();
    let said = "admission webhook \"validate.pinion.dev\" denied the request: black is for others";
    assert!(error.contains(said), "{error}");
    let end = Instant::now() + SOON;
    loop {
        let _ = apply(cluster, folder, "none", "mutate", "").unwrap();
        let colour = cluster.kubectl(&["get", "configmap", "none", "-o", "jsonpath={.data.colour}"]).unwrap();
        if colour == "green" {
            return;
        }
        assert!(Instant::now() < end, "nothing was patched");
        let _ = cluster.kubectl(&["delete", "configmap", "none"]).unwrap();
    }
}

/// Whatever is done to the bundle, it comes back, and nothing else is touched.
fn overwritten(cluster: &Cluster, runtime: &Runtime, client: &Client) {
    let kind = "validatingwebhookconfiguration";
    for patch in [
        r#"[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]"#,
        r#"[{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "LS0tLS1CRUdJTg=="}]"#,
    ] {
        // The second is no bundle at all, which the API server may refuse to keep.
        let _ = cluster.kubectl(&["patch", kind, "pinion", "--type=json", "-p", patch]);
        let back = |text: &str| text.len() > 500;
        let _ = cluster.until(&["get", kind, "pinion", "-o", BUNDLE], SOON, back).unwrap();
    }
    let owned = cluster.kubectl(&["get", kind, "pinion", "-o", "json", "--show-managed-fields"]).unwrap();
    let owned: serde_json::Value = serde_json::from_str(&owned).unwrap();
    let ours = owned["metadata"]["managedFields"].as_array().unwrap();
    let ours = ours.iter().find(|f| f["manager"] == "pinion-webhook").unwrap();
    assert_eq!(ours["operation"], "Apply");
    let fields = ours["fieldsV1"].to_string();
    assert!(fields.contains("caBundle") && !fields.contains("failurePolicy"), "{fields}");
    let absent = runtime.block_on(inject(client, Hook::Mutate, "nobody", "pem")).unwrap_err();
    assert_eq!(absent.to_string(), "There is no MutatingWebhookConfiguration nobody: apply the manifests");
}

/// Requests go on until there is another authority, and some more; none fails.
fn rotated(cluster: &Cluster, folder: &Path, begin: &str, replicas: &[Replica; 2]) {
    let end = Instant::now() + SOON * 2;
    let (mut asked, mut bundles) = (0, vec![begin.to_owned()]);
    let serving = "pinion_webhook_certificate_replacements_total{cause=\"Serving\"}";
    let count = || replicas.iter().map(|r| r.count(serving)).sum::<f64>();
    let from = count();
    // Old alone, old and new, new alone: four bundles are more than one whole turn.
    while bundles.len() < 4 || count() < from + 6.0 {
        assert!(Instant::now() < end, "{} bundles, {} certificates", bundles.len(), count() - from);
        let colour = format!("data: {{colour: n{asked}}}");
        let done = apply(cluster, folder, "asked", "validate", &colour);
        let told: String = replicas.iter().map(Replica::told).collect();
        assert!(done.is_ok(), "after {asked}: {done:?}\n{told}");
        asked += 1;
        let get = ["get", "validatingwebhookconfiguration", "pinion", "-o", BUNDLE];
        let bundle = cluster.kubectl(&get).unwrap();
        if bundles.last() != Some(&bundle) {
            bundles.push(bundle);
        }
    }
    println!("{asked} requests over {} bundles and {} certificates", bundles.len(), count() - from);
    let error = apply(cluster, folder, "red", "validate", "data: {colour: red}").unwrap_err();
    assert!(error.contains("red is taken"), "it is still asked: {error}");
}

/// A Secret that somebody broke is made anew, once, and told.
fn damaged(cluster: &Cluster, folder: &Path, replicas: &[Replica; 2]) {
    let broken = r#"{"data": {"tls.key": "AAAA", "ca.key": null}}"#;
    let _ = cluster.kubectl(&["patch", "secret", "pinion-webhook", "--type=merge", "-p", broken]).unwrap();
    let told = || replicas.iter().map(Replica::told).collect::<String>();
    let end = Instant::now() + SOON;
    while !told().contains("cannot be used, and is replaced") {
        assert!(Instant::now() < end, "{}", told());
        thread::sleep(Duration::from_millis(200));
    }
    // The bundle is another, which API servers learn a moment later.
    while apply(cluster, folder, "blue", "validate", "data: {colour: blue}").is_err() {
        assert!(Instant::now() < end, "{}", told());
    }
    let kind = cluster.kubectl(&["get", "secret", "pinion-webhook", "-o", "jsonpath={.type}"]).unwrap();
    assert_eq!(kind, "kubernetes.io/tls");
    assert!(!told().contains("PRIVATE KEY"));
}

/// With nobody there the API server refuses by itself, as the configuration says.
fn down(cluster: &Cluster, folder: &Path, runtime: &Runtime, replicas: [Replica; 2]) {
    let [first, second] = replicas;
    first.stop.send(()).unwrap();
    runtime.block_on(first.task).unwrap();
    let error = apply(cluster, folder, "blue", "validate", "data: {colour: yellow}").unwrap_err();
    assert!(error.contains("failed calling webhook \"validate.pinion.dev\""), "{error}");
    // Another replica takes over where the Service leads there: here, by its own address.
    configurations(cluster, folder, second.address);
    let end = Instant::now() + SOON;
    while let Err(error) = apply(cluster, folder, "blue", "validate", "data: {colour: yellow}") {
        assert!(Instant::now() < end, "{error}\n{}", second.told());
    }
    second.stop.send(()).unwrap();
    runtime.block_on(second.task).unwrap();
}
