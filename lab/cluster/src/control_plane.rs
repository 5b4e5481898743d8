//! etcd, API server, controller manager and scheduler, on this machine's loopback.
//!
//! Called by a cluster, on the thread that holds it.
//!
//! 1. etcd first, since the API server ends without it.
//! 2. The API server; ready once it says so to a client.
//! 3. The two others, which wait for nothing.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use pinion_lab::LabError;
use serde_json::json;

use crate::authority::{Authority, signing_key, write};
use crate::process::Process;
use crate::relay::Relay;
use crate::{ClusterError, ClusterPrograms};

/// This machine, as nodes see it.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const SERVICES: &str = "10.96.0.0/16";
const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Which of the processes is the API server: it is started after etcd.
const SERVER: usize = 1;
/// It takes three when nothing else runs.
const READY_WITHIN: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(250);

/// The control plane.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    folder: PathBuf,
    kubectl: PathBuf,
    authority: Authority,
    port: u16,
    processes: Vec<Process>,
    /// What the API server is started with.
    server: (PathBuf, Vec<String>),
    _relay: Relay,
}

impl ControlPlane {
    /// Brings it up; all its files are in that folder. `proxy` is the port of this machine that leads to the proxy in the
    /// first node.
    pub(crate) fn up(programs: &ClusterPrograms, folder: &Path, proxy: u16) -> Result<Self, ClusterError> {
        let authority = Authority::new("pinion-lab")?;
        let ports = free_ports::<3>()?;
        let [port, etcd, _] = ports;
        let admin = authority.client("admin", Some("system:masters"))?;
        let here = format!("https://127.0.0.1:{port}");
        write(folder, "kubeconfig", &authority.kubeconfig(&here, &admin))?;
        let socket = std::env::temp_dir().join(format!("pinion-cluster-{}-{port}", std::process::id()));
        let relay = Relay::open(&socket, proxy)?;
        let start = |name: &str, words: &[String]| Process::start(&programs.path(name), words, folder);
        let mut plane = Self {
            folder: folder.to_owned(),
            kubectl: programs.path("kubectl"),
            authority,
            port,
            processes: vec![start("etcd", &etcd_words(folder, ports))?],
            server: (programs.path("kube-apiserver"), Vec::new()),
            _relay: relay,
        };
        plane.server.1 = plane.server_words(etcd, &socket)?;
        plane.processes.push(Process::start(&plane.server.0, &plane.server.1, folder)?);
        plane.ready()?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let identity = plane.authority.client(&format!("system:{name}"), None)?;
            let config = plane.authority.kubeconfig(&here, &identity);
            let config = write(folder, &format!("{name}.kubeconfig"), &config)?;
            let mut words = words(&[
                ("kubeconfig", &config.display().to_string()),
                ("leader-elect", "false"),
                ("secure-port", "0"),
            ]);
            if name == "kube-controller-manager" {
                let place = |name: &str| folder.join(name).display().to_string();
                words.extend(self::words(&[
                    ("service-account-private-key-file", &place("accounts.key")),
                    ("root-ca-file", &place("ca.crt")),
                    ("use-service-account-credentials", "true"),
                ]));
            }
            plane.processes.push(start(name, &words)?);
        }
        Ok(plane)
    }

    /// Who signs for it.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where nodes reach the API.
    pub(crate) fn address_for_nodes(&self) -> String {
        format!("https://{OUTSIDE}:{}", self.port)
    }

    /// A `kubectl` command for this cluster, as its administrator.
    pub(crate) fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.folder.join("kubeconfig"));
        command
    }

    /// Kills the API server, starts it again, and waits until it answers. Its log begins anew.
    pub(crate) fn restart_server(&mut self) -> Result<(), ClusterError> {
        if let Some(server) = self.processes.get_mut(SERVER) {
            server.kill();
            *server = Process::start(&self.server.0, &self.server.1, &self.folder)?;
        }
        self.ready()
    }

    /// Which of its programs have ended, and what they said.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.processes.iter_mut().find_map(|process| {
            let log = process.log().display().to_string();
            process.ended().map(|said| format!("{log}: {said}"))
        })
    }

    fn ready(&mut self) -> Result<(), ClusterError> {
        let end = Instant::now() + READY_WITHIN;
        loop {
            let asked: Result<Output, _> = self.kubectl().args(["get", "--raw", "/readyz"]).output();
            if asked.is_ok_and(|done| done.status.success()) {
                return Ok(());
            }
            let hint = self.ended();
            if hint.is_some() || Instant::now() >= end {
                let hint = hint.unwrap_or_else(|| format!("see the logs in {}", self.folder.display()));
                let seconds = READY_WITHIN.as_secs();
                return Err(ClusterError::NotReady { what: "The API server".to_owned(), seconds, hint });
            }
            thread::sleep(LOOK);
        }
    }

    /// What the API server is told, and the files that it names.
    fn server_words(&self, etcd: u16, relay: &Path) -> Result<Vec<String>, ClusterError> {
        let folder = &self.folder;
        let ca = write(folder, "ca.crt", self.authority.certificate())?.display().to_string();
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let addresses = [Ipv4Addr::LOCALHOST, OUTSIDE, FIRST_SERVICE].map(IpAddr::V4);
        let [certificate, key] =
            self.authority.server("kube-apiserver", &names, &addresses)?.write(folder, "apiserver")?;
        let to_kubelet = self.authority.client("kube-apiserver-kubelet-client", Some("system:masters"))?;
        let [kubelet_certificate, kubelet_key] = to_kubelet.write(folder, "apiserver-kubelet")?;
        let front = Authority::new("pinion-lab-front-proxy")?;
        let front_ca = write(folder, "front-proxy-ca.crt", front.certificate())?.display().to_string();
        let [front_certificate, front_key] =
            front.client("front-proxy", None)?.write(folder, "front-proxy")?;
        let [private, public] = signing_key()?;
        let private = write(folder, "accounts.key", &private)?.display().to_string();
        let public = write(folder, "accounts.pub", &public)?.display().to_string();
        let egress = json!({
            "apiVersion": "apiserver.k8s.io/v1beta1",
            "kind": "EgressSelectorConfiguration",
            // By a Unix socket: over plain TCP the API server's HTTPConnect panics.
            "egressSelections": [{"name": "cluster", "connection": {
                "proxyProtocol": "HTTPConnect", "transport": {"uds": {"udsName": relay}},
            }}],
        });
        let egress = write(folder, "egress.yaml", &egress.to_string())?.display().to_string();
        let outside = OUTSIDE.to_string();
        Ok(words(&[
            ("etcd-servers", &format!("http://127.0.0.1:{etcd}")),
            ("bind-address", "127.0.0.1"),
            ("secure-port", &self.port.to_string()),
            ("advertise-address", &outside),
            ("tls-cert-file", &certificate),
            ("tls-private-key-file", &key),
            ("client-ca-file", &ca),
            ("kubelet-client-certificate", &kubelet_certificate),
            ("kubelet-client-key", &kubelet_key),
            ("kubelet-preferred-address-types", "InternalIP"),
            ("requestheader-client-ca-file", &front_ca),
            ("requestheader-allowed-names", "front-proxy"),
            ("requestheader-username-headers", "X-Remote-User"),
            ("requestheader-group-headers", "X-Remote-Group"),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            ("proxy-client-cert-file", &front_certificate),
            ("proxy-client-key-file", &front_key),
            ("enable-aggregator-routing", "true"),
            ("service-account-signing-key-file", &private),
            ("service-account-key-file", &public),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("service-cluster-ip-range", SERVICES),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("egress-selector-config-file", &egress),
            ("allow-privileged", "true"),
            ("profiling", "false"),
        ]))
    }
}

fn etcd_words(folder: &Path, [_, client, peer]: [u16; 3]) -> Vec<String> {
    let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
    let data = folder.join("etcd");
    // What is in it need not outlive this machine's next crash.
    let _ = fs::remove_dir_all(&data);
    words(&[
        ("data-dir", &data.display().to_string()),
        ("listen-client-urls", &client),
        ("advertise-client-urls", &client),
        ("listen-peer-urls", &peer),
        ("initial-advertise-peer-urls", &peer),
        ("initial-cluster", &format!("default={peer}")),
        ("unsafe-no-fsync", "true"),
    ])
}

fn words(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

/// TCP ports of loopback that nobody listens on just now.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], ClusterError> {
    let failed = |source| LabError::File { action: "take a port of", path: "127.0.0.1".into(), source };
    // All of them at once, so that none is given twice.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        *port = listener.local_addr().map_err(failed)?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ() {
        let [one, two, three] = free_ports::<3>().unwrap();
        assert!(one != two && two != three && one != three && one > 0);
    }
}
