//! What the controller costs: machines that are made at once, on a real API server with nodes that are played.
//!
//! 100 machines on 10 nodes, and 10,000 on 1,000 (`cargo bench --bench controller -- small` or `large` for one of them). The
//! controller is the real program with its webhook, and the scheduler is Kubernetes' own. A played kubelet starts a pod when it
//! is bound, and a played agent says that its guest runs as soon as that is so: what is left is the controller's, the
//! scheduler's and the API server's.

#[path = "../../controller/daemon/tests/controller/objects.rs"]
mod objects;
#[path = "controller/player.rs"]
mod player;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pinion_lab::Cache;
use pinion_lab_cluster::{Cluster, ClusterPrograms, Options};
use player::{Moments, Player};
use serde_json::json;
use tokio::task::JoinSet;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A size of a cluster.
#[derive(Clone, Copy, Debug)]
struct Size {
    name: &'static str,
    machines: usize,
    nodes: usize,
}

const SIZES: [Size; 2] = [
    Size { name: "small", machines: 100, nodes: 10 },
    Size { name: "large", machines: 10_000, nodes: 1_000 },
];
/// Machines that are made at the same time.
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(1500);

fn main() -> Outcome {
    // `cargo bench WORDS` runs those that are named.
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |size: &Size| {
        words.is_empty() || words.iter().any(|w| "controller".contains(w.as_str()) || w == size.name)
    };
    if !SIZES.iter().any(wanted) {
        return Ok(());
    }
    if !ClusterPrograms::are_ready(&Cache::of_user()) {
        println!("skipped: Kubernetes is not built here: `cargo xtask setup --cluster` builds it");
        return Ok(());
    }
    let program = pinion_benches::side_by_side::controller()?;
    for size in SIZES.into_iter().filter(wanted) {
        measure(&program, size)?;
    }
    Ok(())
}

/// The controller's process.
struct Controller {
    child: Child,
    pages: SocketAddr,
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Controller {
    fn start(program: &Path, folder: &Path) -> Outcome<Self> {
        let free = || -> Outcome<SocketAddr> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?) };
        let (pages, webhook) = (free()?, free()?);
        let log = File::create(folder.join("controller.log"))?;
        let child = Command::new(program)
            .env("KUBECONFIG", folder.join("cluster/kubeconfig"))
            .args(["--launcher-image", "pinion.dev/launcher:bench"])
            .args(["--libvirt-launcher-image", "pinion.dev/launcher-libvirt:bench"])
            .args(["--listen", &pages.to_string()])
            .args(["--webhook", &webhook.to_string(), "--webhook-url", &format!("https://{webhook}")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { child, pages })
    }

    fn metrics(&self) -> Outcome<String> {
        let mut stream = TcpStream::connect(self.pages)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Requests to the API server that were answered, by what they are.
    fn requests(&self) -> Outcome<BTreeMap<String, f64>> {
        let mut requests = BTreeMap::new();
        for line in self.metrics()?.lines() {
            let Some(rest) = line.strip_prefix("pinion_controller_api_requests_total{") else { continue };
            let Some((labels, value)) = rest.split_once("} ") else { continue };
            let of = |name: &str| {
                labels
                    .split(',')
                    .find_map(|l| l.strip_prefix(name)?.strip_prefix("=\""))
                    .unwrap_or_default()
                    .trim_end_matches('"')
            };
            *requests.entry(format!("{} {}", of("verb"), of("kind"))).or_default() +=
                value.trim().parse::<f64>().unwrap_or(0.0);
        }
        Ok(requests)
    }

    /// CPU time in seconds, and the most memory in MiB.
    fn cost(&self) -> Outcome<(f64, f64)> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: f64 =
            after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak =
            status.lines().find_map(|l| l.strip_prefix("VmHWM:")).and_then(|l| l.trim().strip_suffix(" kB"));
        Ok((ticks / 100.0, peak.and_then(|kib| kib.trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0))
    }
}

fn measure(program: &Path, size: Size) -> Outcome {
    let Size { machines, nodes, .. } = size;
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::up(&Options::of_nodes(0, &folder.path().join("cluster")), &mut |_, _| ())?;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds").display().to_string();
    let _ = cluster.kubectl(&["apply", "--server-side", "-k", &crds])?;
    let _ = cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    let _ = cluster.kubectl(&["create", "namespace", "pinion-system"])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let text = Kubeconfig::read_from(folder.path().join("cluster/kubeconfig"))?;
    let config = runtime.block_on(Config::from_custom_kubeconfig(text, &KubeConfigOptions::default()))?;
    let client = {
        let _inside = runtime.enter();
        Client::try_from(config)?
    };
    let moments = Arc::new(Moments::default());
    // The played nodes have no heartbeats, for which it would take them for dead.
    let manager = folder.path().join("cluster/kube-controller-manager.kubeconfig");
    let _ = cluster.until(&["get", "serviceaccount", "default"], Duration::from_secs(60), |_| true)?;
    let _ = Command::new("pkill").args(["-KILL", "-f", &manager.display().to_string()]).status()?;
    println!("{machines} machines, {nodes} nodes: the nodes…");
    let player = runtime.block_on(Player::start(client.clone(), nodes, Arc::clone(&moments)))?;
    let controller = Controller::start(program, folder.path())?;
    let bundle = [
        "get",
        "validatingwebhookconfiguration",
        "pinion-webhook",
        "-o",
        "jsonpath={.webhooks[0].clientConfig.caBundle}",
    ];
    let _ = cluster.until(&bundle, Duration::from_secs(60), |text| !text.is_empty())?;
    let (idle, before) = (controller.cost()?.0, controller.requests()?);
    println!("{machines} machines, {nodes} nodes: the machines…");
    let began = Instant::now();
    runtime.block_on(make(&client, machines, &moments))?;
    let made = began.elapsed();
    while moments.running() < machines {
        if began.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(folder.path().join("controller.log"))?;
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            return Err(format!("{} of {machines} run: {tail:#?}", moments.running()).into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let all = began.elapsed();
    // The last statuses are on their way.
    std::thread::sleep(Duration::from_secs(3));
    let ((cpu, peak), after) = (controller.cost()?, controller.requests()?);
    println!("{}", report(size, (made, all), &moments, (cpu - idle, peak), (&before, &after)));
    drop(player);
    runtime.shutdown_background();
    Ok(())
}

/// Makes machines, so many at once.
async fn make(client: &Client, count: usize, moments: &Arc<Moments>) -> Outcome {
    let api = objects::objects(client, "kubevirt.io", "v1", "VirtualMachine", "default");
    let mut tasks: JoinSet<Result<(), kube::Error>> = JoinSet::new();
    for number in 0..count {
        if tasks.len() >= AT_ONCE
            && let Some(done) = tasks.join_next().await
        {
            done??;
        }
        let (api, moments) = (api.clone(), Arc::clone(moments));
        tasks.spawn(async move {
            let name = format!("vm-{number}");
            let machine = serde_json::from_value(machine(&name)).map_err(kube::Error::SerdeError)?;
            moments.created(&name);
            api.create(&kube::api::PostParams::default(), &machine).await.map(drop)
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

fn machine(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": name},
        "spec": {"runStrategy": "Always", "template": {"spec": {"domain": {
            "cpu": {"cores": 2, "dedicatedCpuPlacement": true},
            "memory": {"guest": "1Gi"},
            "firmware": {"kernelBoot": {"container": {"image": "example.com/kernel", "kernelPath": "/vmlinuz"}}},
            "devices": {"interfaces": [{"name": "default", "masquerade": {}}]},
        }, "networks": [{"name": "default", "pod": {}}]}}},
    })
}

fn report(
    size: Size,
    (made, all): (Duration, Duration),
    moments: &Moments,
    (cpu, peak): (f64, f64),
    (before, after): (&BTreeMap<String, f64>, &BTreeMap<String, f64>),
) -> String {
    let count = size.machines as f64;
    let mut text = format!("\n{} machines on {} nodes\n", size.machines, size.nodes);
    let _ =
        writeln!(text, "  made within {:.2} s, all run after {:.2} s", made.as_secs_f64(), all.as_secs_f64());
    for (what, spans) in moments.spans() {
        let last = spans.len().saturating_sub(1);
        let at = |percent: usize| {
            spans.get((spans.len() * percent / 100).min(last)).map_or(0.0, Duration::as_secs_f64)
        };
        let _ = writeln!(text, "  created → {what:<12} p50 {:>8.3} s   p99 {:>8.3} s", at(50), at(99));
    }
    let _ = writeln!(
        text,
        "  controller: {:.2} s of CPU ({:.2} ms a machine), at most {peak:.0} MiB",
        cpu,
        cpu * 1000.0 / count
    );
    let mut sum = 0.0;
    for (what, value) in after {
        let value = value - before.get(what).unwrap_or(&0.0);
        sum += value;
        if value > 0.0 {
            let _ = writeln!(text, "    {what:<42} {:>7.2} a machine", value / count);
        }
    }
    let _ = writeln!(text, "    {:<42} {:>7.2} a machine", "all requests to the API server", sum / count);
    text
}
