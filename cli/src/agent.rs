//! `pinion agent`: the node's daemon, and in a cluster what it publishes.

use std::path::PathBuf;
use std::sync::Arc;

use pinion_endpoint::chain;
use pinion_node_agent::{
    AgentError, AgentOptions as Options, Ledger, PodSources, SECCOMP_PROFILE, run_agent,
    write_seccomp_profile,
};
use pinion_publisher::{Options as Publication, Sources};

use crate::arguments::AgentOptions;
use crate::failure::Failure;

/// The profile of launchers in pods cannot be written: no pod of a guest would start.
#[derive(Debug, thiserror::Error)]
#[error("Cannot write {SECCOMP_PROFILE} below {folder:?}")]
struct SeccompError {
    folder: PathBuf,
    source: std::io::Error,
}

/// Runs it until it is told to end.
///
/// # Errors
/// Why it does not run.
pub(crate) fn run(options: &AgentOptions) -> Result<(), Failure> {
    if let Some(folder) = &options.seccomp {
        let failed = |source| Failure::failed(SeccompError { folder: folder.clone(), source });
        write_seccomp_profile(folder).map_err(failed)?;
    }
    let ledger = Ledger::at(&options.ledger);
    let socket = ledger.agent_socket();
    let pods = PodSources::default();
    let publication = options.node.clone().map(|node| Publication {
        node,
        sources: Sources::of(&ledger, &pods),
        published: Arc::default(),
        tell: Arc::new(|text| eprintln!("{text}")),
    });
    let options = Options {
        ledger,
        pages: Some(options.listen).filter(|_| !options.no_pages),
        group: options.group.clone(),
        profile: options.profile.clone(),
        qualification: options.qualification.clone(),
        pods,
        published: publication.as_ref().map(|publication| Arc::clone(&publication.published)),
    };
    let ready = |pages: Option<std::net::SocketAddr>| {
        let pages = pages.map(|address| format!(", http://{address}/")).unwrap_or_default();
        eprintln!("pinion agent: ready: {}{pages}", socket.display());
        // Only now: its threads are to leave signals to the agent.
        if let Some(publication) = publication
            && let Err(e) = pinion_publisher::start(publication)
        {
            eprintln!("warning: {}", chain(&e));
        }
    };
    run_agent(&options, ready).map_err(|e| match e {
        AgentError::Group(_) => Failure::invalid(e),
        e => Failure::failed(e),
    })
}

#[cfg(test)]
mod tests {
    use pinion_launcher::pod::{
        AgentChanges, HostRequest, Launched, NetworkBinding, OpenPort, PodLink, PodName,
    };
    use pinion_node_agent::{AgentRequest, Changes, Isolation, Launched as Place, NoticeText};
    use pinion_planner::{Emulator, Placement};
    use pinion_pod_network::{Addressing, GuestLink};
    use serde_json::json;

    /// A launcher may not depend on the agent: what they say to each other is held together here.
    #[test]
    fn the_agent_understands_launchers_in_pods_and_they_understand_it() {
        let network = |binding| HostRequest::Network { owner: "n/a", slot: 1, binding };
        let (instance, pod) = (json!({"a": 1}), PodName { namespace: "n".into(), name: "p".into() });
        for (request, kind) in [
            (HostRequest::Launch { instance: &instance, pod: &pod }, "launch"),
            (HostRequest::Commit { owner: "n/a" }, "commit"),
            (HostRequest::Route { owner: "n/a" }, "route"),
            (HostRequest::Release { owner: "n/a" }, "release"),
            (network(NetworkBinding::Bridge { mac: None }), "network"),
            (
                network(NetworkBinding::Masquerade {
                    range: Some("10.0.3.0/24".into()),
                    ports: vec![OpenPort { protocol: "TCP".into(), number: 80 }],
                }),
                "network",
            ),
        ] {
            let read: AgentRequest = serde_json::from_value(serde_json::to_value(&request).unwrap()).unwrap();
            assert_eq!(read.to_string(), kind);
        }
        let placement = Placement {
            name: "n/a".into(),
            generation: 1,
            vcpus: vec![],
            emulator: Emulator { cpus: "0".parse().unwrap() },
            io_threads: vec![],
            cells: vec![],
            devices: vec![],
        };
        let notices = vec![NoticeText { reason: "X".into(), warning: true, text: "it is so".into() }];
        let place = Place { placement: placement.clone(), pid: 7, notices: notices.clone() };
        let read: Launched = serde_json::from_value(serde_json::to_value(&place).unwrap()).unwrap();
        assert_eq!((read.placement, read.pid, read.notices[0].text.as_str()), (placement, 7, "it is so"));
        let addressing = Addressing {
            address: [10, 0, 2, 2].into(),
            prefix: 24,
            server: [10, 0, 2, 1].into(),
            router: Some([10, 0, 2, 1].into()),
            routes: vec![],
        };
        let link = GuestLink { tap: "tap0".into(), mac: None, mtu: 1450, addressing: Some(addressing) };
        let read: PodLink = serde_json::from_value(serde_json::to_value(&link).unwrap()).unwrap();
        assert_eq!((read.mtu, read.addressing.unwrap().prefix), (1450, 24));
        let changes = Changes { notices, isolation: Some(Isolation::Pinned) };
        let read: AgentChanges = serde_json::from_value(serde_json::to_value(&changes).unwrap()).unwrap();
        assert_eq!((read.isolation.as_deref(), read.notices[0].warning), (Some("pinned"), true));
    }
}
