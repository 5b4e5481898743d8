use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use clap::Parser;
use pinion_planner::Placement;
use serde_json::{Value, json};

use super::*;
use crate::backend::{BackendError, OpenedGuest, Wiring};

/// A backend that has nothing to run.
#[derive(Debug)]
struct Nothing;

impl Backend for Nothing {
    fn open(&self, _: &LaunchSpec, _: Wiring) -> Result<Box<dyn OpenedGuest>, BackendError> {
        Err(Box::new(io::Error::other("there is no /dev/kvm")))
    }
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: PodOptions,
}

fn instance() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "a", "namespace": "lab"},
        "spec": {"domain": {
            "memory": {"guest": "64Mi"}, "devices": {"autoattachPodInterface": false},
            "firmware": {"kernelBoot": {"container": {"image": "example.com/kernel", "kernelPath": "/vmlinuz"}}}
        }}
    })
}

/// The CPUs that this process may run on.
fn own_cpus() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    serde_json::to_value(list.parse::<pinion_machine::CpuSet>().unwrap()).unwrap()
}

fn launched() -> Value {
    let placement = json!({
        "name": "lab/a", "generation": 1, "vcpus": [], "emulator": {"cpus": own_cpus()},
        "ioThreads": [], "cells": [], "devices": []
    });
    serde_json::from_value::<Placement>(placement.clone()).unwrap();
    json!({"done": {"placement": placement, "pid": 4711, "notices": []}})
}

/// An agent that gives these answers, one for each connection, and what it was asked.
fn agent(socket: &Path, answers: Vec<Value>) -> thread::JoinHandle<Vec<Value>> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let answer = |answer: Value| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
            serde_json::from_str(&line).unwrap()
        };
        answers.into_iter().map(answer).collect()
    })
}

struct Pod {
    folder: tempfile::TempDir,
}

impl Pod {
    fn new(instance: &str) -> Self {
        let pod = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(pod.path("vmi.json"), instance).unwrap();
        pod
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self) -> u8 {
        let (instance, agent, status) = (self.path("vmi.json"), self.path("agent"), self.path("status.json"));
        let text = |path: &std::path::PathBuf| path.to_str().unwrap().to_owned();
        let words =
            ["x", "--instance", &text(&instance), "--agent", &text(&agent), "--status", &text(&status)]
                .map(str::to_owned);
        let pod = ["--namespace", "lab", "--pod", "virt-launcher-a"].map(str::to_owned);
        let line = Line::parse_from(words.into_iter().chain(pod));
        // Signals are blocked for the thread that runs it.
        thread::spawn(move || run("test", BackendKind::Native, &line.options, &Nothing)).join().unwrap()
    }

    fn status(&self) -> LauncherStatus {
        serde_json::from_slice(&std::fs::read(self.path("status.json")).unwrap()).unwrap()
    }
}

#[test]
fn a_pod_asks_for_its_place_and_says_how_its_guest_ended() {
    let pod = Pod::new(&instance().to_string());
    let asked = agent(&pod.path("agent"), vec![launched()]);
    assert_eq!(pod.run(), 1);
    let asked = asked.join().unwrap();
    assert_eq!(
        asked[0],
        json!({"ask": "launch", "instance": instance(), "pod": {"namespace": "lab", "name": "virt-launcher-a"}})
    );
    let status = pod.status();
    assert_eq!((status.phase.as_str(), status.reason.as_deref()), ("Failed", Some("NotArmed")));
    assert_eq!(status.pid, Some(4711));
    assert!(status.message.unwrap().contains("there is no /dev/kvm"));
}

#[test]
fn an_agent_that_is_busy_is_asked_again_and_a_refusal_is_told_by_its_reason() {
    let pod = Pod::new(&instance().to_string());
    let refusal = |reason: &str| json!({"refused": {"reason": reason, "message": "no"}});
    let asked = agent(&pod.path("agent"), vec![refusal("KubeletSilent"), refusal("InsufficientCpus")]);
    assert_eq!(pod.run(), REFUSED);
    assert_eq!(asked.join().unwrap().len(), 2);
    assert_eq!(pod.status().reason.as_deref(), Some("InsufficientCpus"));
}

#[test]
fn an_instance_that_is_none_is_told_before_anybody_is_asked() {
    let mut unknown = instance();
    unknown["spec"]["domain"]["colour"] = "red".into();
    let two = json!({"apiVersion": "v1", "kind": "List", "items": [instance(), instance()]});
    for (text, reason) in [
        ("{".to_owned(), "InstanceUnreadable"),
        (" ".repeat(2 << 20), "InstanceUnreadable"),
        (unknown.to_string(), "InvalidInstance"),
        (two.to_string(), "InvalidInstance"),
    ] {
        let pod = Pod::new(&text);
        assert_eq!(pod.run(), INVALID);
        let status = pod.status();
        assert_eq!((status.phase.as_str(), status.reason.as_deref()), ("Failed", Some(reason)));
    }
}
