//! `pinion agent`: the node's daemon.

use pinion_node_agent::{AgentError, AgentOptions as Options, Ledger, PodSources, run_agent};

use crate::arguments::AgentOptions;
use crate::failure::Failure;

/// Runs it until it is told to end.
///
/// # Errors
/// Why it does not run.
pub(crate) fn run(options: &AgentOptions) -> Result<(), Failure> {
    let ledger = Ledger::at(&options.ledger);
    let socket = ledger.agent_socket();
    let options = Options {
        ledger,
        pages: Some(options.listen).filter(|_| !options.no_pages),
        group: options.group.clone(),
        profile: options.profile.clone(),
        qualification: options.qualification.clone(),
        pods: PodSources::default(),
    };
    let ready = |pages: Option<std::net::SocketAddr>| {
        let pages = pages.map(|address| format!(", http://{address}/")).unwrap_or_default();
        eprintln!("pinion agent: ready: {}{pages}", socket.display());
    };
    run_agent(&options, ready).map_err(|e| match e {
        AgentError::Group(_) => Failure::invalid(e),
        e => Failure::failed(e),
    })
}

#[cfg(test)]
mod tests {
    use pinion_launcher::pod::{AgentChanges, HostRequest, Launched, PodName};
    use pinion_node_agent::{AgentRequest, Changes, Isolation, Launched as Place, NoticeText};
    use pinion_planner::{Emulator, Placement};
    use serde_json::json;

    /// A launcher may not depend on the agent: what they say to each other is held together here.
    #[test]
    fn the_agent_understands_launchers_in_pods_and_they_understand_it() {
        let (instance, pod) = (json!({"a": 1}), PodName { namespace: "n".into(), name: "p".into() });
        for (request, kind) in [
            (HostRequest::Launch { instance: &instance, pod: &pod }, "launch"),
            (HostRequest::Commit { owner: "n/a" }, "commit"),
            (HostRequest::Route { owner: "n/a" }, "route"),
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
        let changes = Changes { notices, isolation: Some(Isolation::Pinned) };
        let read: AgentChanges = serde_json::from_value(serde_json::to_value(&changes).unwrap()).unwrap();
        assert_eq!((read.isolation.as_deref(), read.notices[0].warning), (Some("pinned"), true));
    }
}
