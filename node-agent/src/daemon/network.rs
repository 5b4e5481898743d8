//! The pod network of a guest in a pod: made by the agent, in the pod's network namespace, for a launcher that may not.
//!
//! Called by the socket's task: whether the one who asks may, the desk says; the rest takes its time and is done on a thread of
//! its own. It changes nothing outside of the pod's namespace. Nothing of it has to be put back: it goes with the pod.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use pinion_api::MacAddress;
use pinion_endpoint::{Refusal, chain};
use pinion_pod_network::{Binding, GuestLink, GuestNetwork, PodInterface, Port, Protocol, prepare};

use super::protocol::{NetworkBinding, OpenPort};
use crate::pod::PodPlace;

/// The interface that a pod's network is on.
const POD_INTERFACE: &str = "eth0";

/// What is made, and of whom.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The process that asks, by whose namespace the pod's is found.
    pub(super) pid: i32,
    /// Its pod.
    pub(super) pod: PodPlace,
    pub(super) slot: u8,
    pub(super) binding: NetworkBinding,
}

/// Where is remembered what pods' interfaces were like, and whose pods are still there.
#[derive(Clone, Debug)]
pub(super) struct Records {
    pub(super) folder: PathBuf,
    /// The kubelet's folder of logs.
    pub(super) logs: PathBuf,
}

impl Records {
    /// The file of an interface of a pod.
    fn file(&self, pod: &str, slot: u8) -> PathBuf {
        self.folder.join(format!("{pod}.{slot}.json"))
    }

    /// Forgets pods that are gone: the kubelet's folder of their logs is.
    fn tidy(&self) {
        let logs: Vec<String> = names(&self.logs).collect();
        for name in names(&self.folder) {
            let pod = name.split('.').next().unwrap_or_default();
            if !logs.iter().any(|log| log.ends_with(pod)) {
                let _ = fs::remove_file(self.folder.join(name));
            }
        }
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Makes it: what the launcher is told, and its descriptors.
pub(super) fn make(
    records: &Records,
    proc: &Path,
    wanted: Wanted,
) -> Result<(GuestLink, Vec<OwnedFd>), Refusal> {
    records.tidy();
    let failed = |path: &Path, e: std::io::Error| {
        Refusal::new("NetworkUnreachable", format!("Cannot open {}: {e}", path.display()))
    };
    fs::create_dir_all(&records.folder).map_err(|e| failed(&records.folder, e))?;
    let path = proc.join(format!("{}/ns/net", wanted.pid));
    let namespace = File::open(&path).map_err(|e| failed(&path, e))?;
    let binding = binding(wanted.binding, || records.file(&wanted.pod.uid, wanted.slot))?;
    let interface = PodInterface { slot: wanted.slot, device: POD_INTERFACE.to_owned(), binding };
    let made = prepare(&namespace, &interface).map_err(|e| Refusal::new(e.reason(), chain(&e)))?;
    let descriptors = [Some(made.tap), made.dhcp.map(OwnedFd::from)].into_iter().flatten().collect();
    Ok((made.guest, descriptors))
}

fn binding(wanted: NetworkBinding, record: impl FnOnce() -> PathBuf) -> Result<Binding, Refusal> {
    let malformed = |text: String| Refusal::new("Malformed", text);
    Ok(match wanted {
        NetworkBinding::Masquerade { range, ports } => Binding::Masquerade {
            network: match range {
                Some(range) => range.parse().map_err(|e| malformed(chain(&e)))?,
                None => GuestNetwork::default(),
            },
            ports: ports.into_iter().map(port).collect::<Result<_, _>>().map_err(malformed)?,
        },
        NetworkBinding::Bridge { mac } => {
            let mac = mac.map(|text| text.parse::<MacAddress>()).transpose();
            Binding::Bridge { mac: mac.map_err(|e| malformed(chain(&e)))?, record: record() }
        }
    })
}

fn port(port: OpenPort) -> Result<Port, String> {
    let protocol = match port.protocol.as_str() {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        other => return Err(format!("{other:?} is no protocol: TCP or UDP")),
    };
    Ok(Port { protocol, number: port.number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_launcher_asks_for_is_looked_at_before_anything_is_made() {
        let record = || PathBuf::from("/r");
        let of = |binding: NetworkBinding| binding_reason(super::binding(binding, record));
        let masquerade = |range: Option<&str>, protocol: &str| NetworkBinding::Masquerade {
            range: range.map(ToOwned::to_owned),
            ports: vec![OpenPort { protocol: protocol.to_owned(), number: 80 }],
        };
        assert_eq!(of(masquerade(None, "TCP")), "");
        assert_eq!(of(masquerade(Some("192.168.9.0/24"), "UDP")), "");
        assert_eq!(of(masquerade(Some("192.168.9.0/33"), "UDP")), "Malformed");
        assert_eq!(of(masquerade(None, "SCTP")), "Malformed");
        assert_eq!(of(NetworkBinding::Bridge { mac: Some("02:00:00:00:00:01".into()) }), "");
        assert_eq!(of(NetworkBinding::Bridge { mac: Some("x".into()) }), "Malformed");
    }

    fn binding_reason(answer: Result<Binding, Refusal>) -> String {
        answer.err().map(|refusal| refusal.reason).unwrap_or_default()
    }

    #[test]
    fn records_of_pods_that_are_gone_are_removed_and_others_kept() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records { folder: folder.path().join("networks"), logs: folder.path().join("pods") };
        fs::create_dir_all(records.logs.join("default_web_uid-1")).unwrap();
        fs::create_dir_all(&records.folder).unwrap();
        for pod in ["uid-1", "uid-2"] {
            fs::write(records.file(pod, 0), "{}").unwrap();
        }
        records.tidy();
        assert!(records.file("uid-1", 0).exists() && !records.file("uid-2", 0).exists());
    }
}
