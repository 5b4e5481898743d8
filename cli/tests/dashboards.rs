//! Prometheus scrapes a node agent with running guests: every panel of the dashboard and every rule returns data. Its
//! page is looked at by a browser.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod lab;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Cache, Files, Lab, Shape, debian_program};
use serde_json::Value;

/// A guest with one core to itself.
const SPEC: &str = include_str!("lab/one-core.yaml");

const PROFILE: &str = "
apiVersion: pinion.dev/v1alpha1
kind: NodeProfile
metadata: {name: lab}
spec: {dedicated: 2-7, hugePages: [{node: 0, pageSize: 2Mi, count: 170}]}
";

/// How long samples may take to make rates.
const DATA_WITHIN: Duration = Duration::from_secs(90);

fn manifest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(name)
}

#[test]
fn every_panel_and_rule_returns_data_and_the_page_is_whole() {
    let prometheus = debian_program(&Cache::of_user(), "prometheus", "usr/bin/prometheus");
    if let Err(e) = &prometheus {
        println!("skipped: the dashboards: no Prometheus: {e}");
    }
    on_lab("dashboards", &Shape::small(), "while true; do sleep 1; done", &Files::new(), |lab| {
        start(lab);
        facts(lab);
        if let Ok(prometheus) = &prometheus {
            scraped(lab, prometheus);
        }
        looked_at(lab);
        profile_changes(lab);
    });
}

/// An agent with a profile, a qualification and two guests.
fn start(lab: &Lab) {
    lab.put("/etc/pinion/profile.yaml", PROFILE.as_bytes(), 0o644).unwrap_or_else(|_| {
        must(lab, "mkdir -p /etc/pinion", QUICK);
        lab.put("/etc/pinion/profile.yaml", PROFILE.as_bytes(), 0o644).unwrap();
    });
    must(
        lab,
        "mount -t tracefs tracefs /sys/kernel/tracing; pinion qualify --cpus 6,7 --for 1 --load none",
        LONG,
    );
    let agent = "pinion agent 2>> /agent.log & echo $! > /agent.pid; \
        for i in $(seq 300); do wget -q -O - http://127.0.0.1:9180/readyz && exit 0; sleep 0.1; done; exit 1";
    must(lab, agent, LONG);
    for name in ["a", "b"] {
        lab.put(&format!("/{name}.yaml"), SPEC.replace("NAME", name).as_bytes(), 0o644).unwrap();
        let output = sh(lab, &format!("pinion run -d /{name}.yaml"), LONG);
        assert!(output.success(), "{}", both(&output));
    }
    assert_eq!(
        must(lab, "cat /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", QUICK),
        "170\n"
    );
}

/// Labels and facts, as they are written on one host.
fn facts(lab: &Lab) {
    let facts: Value = serde_json::from_str(&must(lab, "cat /run/pinion/node.json", QUICK)).unwrap();
    let labels = &facts["labels"];
    assert_eq!(labels["pinion.dev/numa-nodes"], "2", "{facts:#}");
    assert_eq!(labels["pinion.dev/isolation"], "isolated");
    assert_eq!(labels["pinion.dev/free-cores.node-1"], "1");
    assert_eq!(labels["pinion.dev/largest-guest-vcpus"], "2");
    assert_eq!(labels["cpu-vendor.node.kubevirt.io/AMD"], "true");
    assert_eq!(labels["kubevirt.io/schedulable"], "true");
    // None where the longest gap is beyond every class, as on a busy machine.
    let measured: Value =
        serde_json::from_slice(&lab.get("/var/lib/pinion/qualification.json").unwrap()).unwrap();
    assert_eq!(labels["pinion.dev/latency-class"], measured["latencyClass"], "{facts:#}");
}

/// What keeps a guest's CPUs stays; everything else changes at once.
fn profile_changes(lab: &Lab) {
    let change = |profile: &str| lab.put("/etc/pinion/profile.yaml", profile.as_bytes(), 0o644).unwrap();
    let wait = |what: &str| {
        let wait =
            format!("for i in $(seq 200); do {what} && exit 0; sleep 0.1; done; cat /agent.log; exit 1");
        must(lab, &wait, QUICK * 2)
    };
    change(&PROFILE.replace("2-7", "6-7").replace("170", "180"));
    wait("grep -q 'are dedicated to default/a until it ends' /agent.log");
    wait("grep -q 180 /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages");
    change("kind: Pod");
    wait("grep -q 'apiVersion' /agent.log");
    must(lab, "pinion stop a b", LONG);
    change(&PROFILE.replace("2-7", "6-7"));
    wait("grep -A8 '\"housekeeping\"' /run/pinion/ledger.json | grep -q 5");
    must(lab, "rm /etc/pinion/profile.yaml", QUICK);
    wait("grep -q 160 /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages");
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn scraped(lab: &Lab, prometheus: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let (proxy, done) = (TcpListener::bind("127.0.0.1:0").unwrap(), AtomicBool::new(false));
    let target = proxy.local_addr().unwrap();
    proxy.set_nonblocking(true).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| carry_on(lab, &proxy, &done));
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (server, _process) = serve(prometheus, folder.path(), target);
            panels(server);
            rules(server);
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(why) = checked {
            std::panic::resume_unwind(why);
        }
    });
}

/// Hands each scrape on to the agent, inside the lab.
fn carry_on(lab: &Lab, proxy: &TcpListener, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = proxy.accept() else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        let mut request = String::new();
        let _ = BufReader::new(&stream).read_line(&mut request);
        let Ok(output) = lab.sh("wget -q -O - http://127.0.0.1:9180/metrics", QUICK) else { return };
        let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&output.output));
    }
}

/// Starts Prometheus, with our rules and scrape configuration.
fn serve(prometheus: &Path, folder: &Path, target: SocketAddr) -> (SocketAddr, Ends) {
    let scrape = fs::read_to_string(manifest("prometheus/scrape.yaml")).unwrap();
    assert!(scrape.contains("127.0.0.1:9180"));
    let rules = fs::canonicalize(manifest("prometheus/rules.yaml")).unwrap();
    let config = format!(
        "global: {{scrape_interval: 3s, scrape_timeout: 3s, evaluation_interval: 3s}}\nrule_files: [{rules:?}]\n{}",
        scrape.replace("127.0.0.1:9180", &target.to_string())
    );
    fs::write(folder.join("prometheus.yaml"), config).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = File::create(folder.join("log")).unwrap();
    let process = Command::new(prometheus)
        .arg(format!("--config.file={}", folder.join("prometheus.yaml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    (address, Ends(process))
}

/// What Prometheus answers to a query; `None` while it does not.
fn query(server: SocketAddr, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// How many series an expression has now.
fn series(server: SocketAddr, expression: &str) -> usize {
    let encoded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
    let answer = query(server, &format!("/api/v1/query?query={encoded}")).unwrap_or_default();
    if answer["status"] == "error" {
        panic!("{expression}: {}", answer["error"]);
    }
    answer["data"]["result"].as_array().map_or(0, Vec::len)
}

fn wait_for_data(server: SocketAddr, expression: &str) {
    let end = Instant::now() + DATA_WITHIN;
    while series(server, expression) == 0 {
        assert!(Instant::now() < end, "no data: {expression}");
        thread::sleep(Duration::from_millis(300));
    }
}

fn panels(server: SocketAddr) {
    let text = fs::read_to_string(manifest("grafana/pinion-nodes.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut checked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            wait_for_data(server, &target["expr"].as_str().unwrap().replace("$instance", ".*"));
            checked += 1;
        }
    }
    println!("{checked} expressions of the dashboard return data");
    assert!(checked > 20);
    // What KubeVirt's own dashboards and rules ask for first.
    for expression in [
        "sum(kubevirt_vmi_info{phase=\"Running\"}) by (node)",
        "sum(rate(kubevirt_vmi_vcpu_seconds_total[5m])) by (name, namespace)",
        "topk(10, kubevirt_vmi_memory_resident_bytes)",
    ] {
        wait_for_data(server, expression);
    }
}

/// Every recording rule has a value, and what an alert compares has one too.
fn rules(server: SocketAddr) {
    let end = Instant::now() + DATA_WITHIN;
    let groups = loop {
        let answer = query(server, "/api/v1/rules").unwrap_or_default();
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        let all = groups.iter().flat_map(|g| g["rules"].as_array().cloned().unwrap_or_default());
        let rules: Vec<Value> = all.collect();
        if rules.len() >= 15 && rules.iter().all(|r| r["health"] == "ok") {
            break rules;
        }
        assert!(Instant::now() < end, "{rules:#?}");
        thread::sleep(Duration::from_millis(300));
    };
    for rule in &groups {
        let (name, expression) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
        if rule["type"] == "recording" {
            wait_for_data(server, name);
        } else {
            let compared =
                expression.rsplit_once([' ']).and_then(|(left, _)| left.rsplit_once(' ')).unwrap().0;
            wait_for_data(server, compared);
        }
    }
    let firing = query(server, "/api/v1/alerts").unwrap();
    println!("alerts: {}", firing["data"]["alerts"]);
}

/// The page in a browser, wide and narrow: it has everything, and is no wider than the window.
fn looked_at(lab: &Lab) {
    let browsers = ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium"];
    let Some(browser) = browsers.into_iter().find(|b| Path::new(b).exists()) else {
        println!("skipped: the page is not looked at: no Chromium on this machine");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    fs::write(&page, must(lab, "wget -q -O - http://127.0.0.1:9180/", QUICK)).unwrap();
    for (width, height) in [(1280, 1100), (500, 1600)] {
        let picture = folder.path().join(format!("page-{width}.png"));
        let look = |extra: &str| {
            let mut command = Command::new(browser);
            command.args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--virtual-time-budget=500",
            ]);
            command.arg(format!("--window-size={width},{height}"));
            command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
            command.arg(extra).arg(format!("file://{}", page.display()));
            let done = command.stderr(Stdio::null()).output().unwrap();
            assert!(done.status.success(), "{command:?}");
            String::from_utf8_lossy(&done.stdout).into_owned()
        };
        let dom = look("--dump-dom");
        for words in
            ["<svg", "default/a", "default/b", "isolated", "holds", "Class ", "Settings that are changed"]
        {
            assert!(dom.contains(words), "{words}: {dom}");
        }
        look(&format!("--screenshot={}", picture.display()));
        let bytes = fs::read(&picture).unwrap();
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000, "{} bytes", bytes.len());
        if let Some(keep) = std::env::var_os("PINION_KEEP_PICTURES") {
            fs::copy(&picture, Path::new(&keep).join(format!("page-{width}.png"))).unwrap();
        }
    }
}
