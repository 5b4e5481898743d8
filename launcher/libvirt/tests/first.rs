//! The launcher as the first process of a container: it starts itself once more, takes in what has ended, and passes on what
//! is asked of it.

#![expect(clippy::unwrap_used, reason = "a test that panics fails")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const LAUNCHER: &str = env!("CARGO_BIN_EXE_pinion-launcher-libvirt");
const INSTANCE: &str = r#"{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
    "metadata": {"name": "a", "namespace": "lab"}, "spec": {"domain": {"memory": {"guest": "64Mi"}, "devices": {
    "disks": [{"name": "a", "disk": {}}]}}, "volumes": [{"name": "a", "containerDisk": {"image": "a"}}]}}"#;

/// It, as the first process of a namespace.
fn contained(words: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
        LAUNCHER,
        "pod",
    ]);
    command.args(["--namespace", "lab", "--pod", "virt-launcher-a"]).args(words).stderr(Stdio::piped());
    command
}

fn may_contain() -> bool {
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "true"])
        .output();
    let may = done.is_ok_and(|done| done.status.success());
    if !may {
        println!("skipped: this user may not make namespaces of processes");
    }
    may
}

/// The first process of the namespace, as this one counts it.
fn first(unshare: &Child) -> i32 {
    let id = unshare.id();
    loop {
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        if let Some(child) = children.split_whitespace().next() {
            return child.parse().unwrap();
        }
        std::thread::yield_now();
    }
}

#[test]
fn it_ends_as_the_launcher_does() {
    if !may_contain() {
        return;
    }
    let done = contained(&["--instance", "/nowhere/vmi.json"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert_eq!(said.matches("Cannot read the instance").count(), 1, "{said}");
}

#[test]
fn who_asks_the_container_to_end_is_heard_by_the_launcher() {
    if !may_contain() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("pinion-first-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (instance, agent) = (folder.join("vmi.json"), folder.join("agent.sock"));
    fs::write(&instance, INSTANCE).unwrap();
    let text = |path: &Path| path.display().to_string();
    let mut child = contained(&["--instance", &text(&instance), "--agent", &text(&agent)]).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    // It waits for an agent that does not come.
    let line = said.next().unwrap().unwrap();
    assert!(line.contains("waiting for the node's agent"), "{line}");
    let first = first(&child);
    assert!(Command::new("kill").arg(first.to_string()).status().unwrap().success());
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    let status = child.wait().unwrap();
    fs::remove_dir_all(folder).unwrap();
    assert_eq!(status.code(), Some(10), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("Asked to end before the guest was placed")), "{rest:?}");
}
