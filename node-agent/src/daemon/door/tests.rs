//! Both sockets, served as the daemon serves them, with a desk that says what it was asked.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use pinion_endpoint::{AskError, ask};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::*;
use crate::daemon::desk::Command;
use crate::daemon::fake::FakeAgent;
use crate::daemon::{Asked, serve};

const SOON: Duration = Duration::from_secs(20);

/// An agent's sockets in a folder.
struct Agent {
    folder: tempfile::TempDir,
    ledger: Ledger,
    end: Option<oneshot::Sender<()>>,
    serving: Option<thread::JoinHandle<()>>,
}

impl Agent {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(folder.path().join("ledger.json"));
        let mut agent = Self { folder, ledger, end: None, serving: None };
        agent.start();
        agent
    }

    fn start(&mut self) {
        let doors = open(&self.ledger, None).unwrap();
        let (to, work) = channel();
        // As the desk, it lives until nobody can ask any more.
        thread::spawn(move || answer(&work));
        let pods = FakeAgent::pods(self.folder.path());
        let (end, ended) = oneshot::channel();
        let (lives, gone) = oneshot::channel();
        let asked = Asked { desk: to, ledger: self.ledger.clone(), pods };
        let serving = move || {
            serve(doors, ended, gone, asked).unwrap();
            drop(lives);
        };
        (self.end, self.serving) = (Some(end), Some(thread::spawn(serving)));
    }

    fn stop(&mut self) {
        drop(self.end.take());
        if let Some(serving) = self.serving.take() {
            serving.join().unwrap();
        }
        close(&self.ledger);
    }

    fn ask(&self, socket: &Path, request: &Value) -> Result<String, Refusal> {
        match ask(socket, request, SOON) {
            Ok(answer) => Ok(answer),
            Err(AskError::Refused(refusal)) => Err(refusal),
            Err(e) => unreachable!("{e:?}"),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Nothing is held by a guest that is called so.
const ABSENT: &str = "lab/absent";

fn answer(work: &Receiver<Command>) {
    for command in work {
        if let Command::Ask(_, request, to) = command {
            let refusal = Refusal::new("NotHeld", "holds nothing on this node");
            let is_absent = request.owner() == Some(ABSENT);
            let _ = to.send(if is_absent { Err(refusal) } else { Ok(request.to_string().into()) });
        }
    }
}

fn of(name: &str, owner: &str) -> Value {
    json!({"ask": name, "owner": owner})
}

fn of_the_host() -> [Value; 4] {
    let holding = json!({"owner": "lab/b", "state": "reserved", "cpus": [4], "memory": []});
    let mut transfer = of("transfer", "lab/a");
    transfer["pid"] = 1.into();
    [
        json!({"ask": "ledger"}),
        json!({"ask": "status"}),
        json!({"ask": "reserve", "generation": 0, "holding": holding}),
        transfer,
    ]
}

#[test]
fn what_is_the_hosts_is_answered_there_and_refused_to_pods() {
    let agent = Agent::new();
    let (host, pods) = (agent.ledger.agent_socket(), agent.ledger.pods_socket());
    for request in of_the_host() {
        assert_eq!(agent.ask(&host, &request).unwrap(), request["ask"].as_str().unwrap());
        let refused = agent.ask(&pods, &request).unwrap_err();
        assert_eq!(refused.reason, "NotPermitted", "{request}");
    }
    let refused = agent.ask(&pods, &json!({"ask": "nonsense"})).unwrap_err();
    assert_eq!(refused.reason, "Malformed");
}

#[test]
fn what_a_launcher_asks_about_its_guest_comes_to_the_desk() {
    let agent = Agent::new();
    let pods = agent.ledger.pods_socket();
    for name in ["commit", "route", "release"] {
        assert_eq!(agent.ask(&pods, &of(name, "lab/a")).unwrap(), name);
    }
    let mut prepare = of("prepare", "lab/a");
    (prepare["wishes"], prepare["bind"]) = (json!({}), false.into());
    assert_eq!(agent.ask(&pods, &prepare).unwrap(), "prepare");
    let mut network = of("network", ABSENT);
    (network["slot"], network["binding"]) = (0.into(), json!({"kind": "bridge"}));
    let refused = agent.ask(&pods, &network).unwrap_err();
    assert!(refused.reason == "NotPermitted" && refused.message.contains("no such guest"), "{refused}");
    let launch = json!({"ask": "launch", "instance": {}, "pod": {"namespace": "lab", "name": "a"}});
    let refused = agent.ask(&pods, &launch).unwrap_err();
    assert_eq!(refused.reason, "ProcessUnknown", "it was looked for below the folder");
}

#[test]
fn a_pod_does_not_learn_which_guests_there_are() {
    let agent = Agent::new();
    let commit = of("commit", ABSENT);
    assert_eq!(agent.ask(&agent.ledger.agent_socket(), &commit).unwrap_err().reason, "NotHeld");
    let refused = agent.ask(&agent.ledger.pods_socket(), &commit).unwrap_err();
    let peer = Peer { pid: i32::try_from(std::process::id()).unwrap(), uid: 0, gid: 0 };
    let others = Refusal::new("NotPermitted", "process 7 neither is \"lab/b\" nor has started it");
    assert_eq!(refused, Door::Pods.told(peer, others), "as if somebody else had it");
    let passing = Refusal::new("LedgerBusy", "it is locked");
    assert_eq!(Door::Pods.told(peer, passing.clone()), passing);
}

#[test]
fn the_folder_of_pods_is_the_agents_alone_and_stays_for_the_next_one() {
    let mut agent = Agent::new();
    let (folder, socket) = (agent.ledger.pods_folder(), agent.ledger.pods_socket());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&folder), mode(&socket)), (0o755, 0o666));
    let before = fs::metadata(&folder).unwrap();
    assert_eq!(before.uid(), geteuid().as_raw());
    agent.stop();
    assert!(!socket.exists() && !agent.ledger.agent_socket().exists());
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    agent.start();
    assert_eq!(fs::metadata(&folder).unwrap().ino(), before.ino(), "what pods have mounted");
    assert_eq!(mode(&folder), 0o755);
    assert_eq!(agent.ask(&socket, &of("route", "lab/a")).unwrap(), "route");
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["agent.sock"], "nothing else goes to pods");
    let second = open(&agent.ledger, None).unwrap_err();
    assert!(matches!(second, AgentError::Socket(_)), "{second}");
}
