use std::cell::RefCell;
use std::collections::BTreeMap;

use super::*;

/// An agent that has learnt its answers by heart; several for one command are given one after the other.
#[derive(Default)]
struct Parrot {
    answers: RefCell<BTreeMap<String, Vec<Value>>>,
    heard: RefCell<Vec<Value>>,
}

impl Parrot {
    fn new(answers: &[(&str, Value)]) -> Self {
        let parrot = Self::default();
        for (command, answer) in answers {
            parrot.answers.borrow_mut().entry((*command).to_owned()).or_default().push(answer.clone());
        }
        parrot
    }
}

impl AgentChannel for Parrot {
    fn command(&self, command: &Value, _within: Duration) -> Result<Value, BackendError> {
        self.heard.borrow_mut().push(command.clone());
        let name = command["execute"].as_str().unwrap_or_default();
        let mut answers = self.answers.borrow_mut();
        let left = answers.get_mut(name).filter(|left| !left.is_empty()).ok_or("no such command")?;
        Ok(if left.len() > 1 { left.remove(0) } else { left[0].clone() })
    }
}

#[test]
fn what_an_agent_says_of_its_system_has_kubevirts_names() {
    let agent = Parrot::new(&[
        ("guest-info", json!({"version": "7.2.22", "supported_commands": []})),
        (
            "guest-get-osinfo",
            json!({"id": "debian", "pretty-name": "Debian GNU/Linux 12 (bookworm)", "machine": "x86_64"}),
        ),
        ("guest-get-timezone", json!({"zone": "UTC", "offset": 0})),
    ]);
    let os = ask(Some(&agent), &AgentRequest::Os).unwrap();
    assert_eq!(os["prettyName"], "Debian GNU/Linux 12 (bookworm)");
    assert_eq!((&os["guestAgentVersion"], &os["timezone"]), (&json!("7.2.22"), &json!("UTC, 0")));
    assert_eq!(os["hostname"], "", "an old agent does not know it");
}

#[test]
fn addresses_of_the_link_alone_come_last_and_the_loopback_not_at_all() {
    let address = |a: &str| json!({"ip-address": a, "ip-address-type": "ipv6", "prefix": 64});
    let agent = Parrot::new(&[(
        "guest-network-get-interfaces",
        json!([{"name": "lo", "ip-addresses": [address("::1")]},
               {"name": "eth0", "hardware-address": "02:00:00:00:00:07", "ip-addresses": [address("fe80::1"), address("10.0.0.2")]},
               {"name": "eth1"}]),
    )]);
    let found = ask(Some(&agent), &AgentRequest::Interfaces).unwrap();
    assert_eq!(found[0]["ipAddresses"], json!(["10.0.0.2", "fe80::1"]));
    assert_eq!(
        (found[0]["mac"].as_str(), found[1]["interfaceName"].as_str()),
        (Some("02:00:00:00:00:07"), Some("eth1"))
    );
}

#[test]
fn a_program_is_waited_for() {
    let agent = Parrot::new(&[
        ("guest-exec", json!({"pid": 77})),
        ("guest-exec-status", json!({"exited": false})),
        (
            "guest-exec-status",
            json!({"exited": true, "exitcode": 3, "out-data": "aGVsbG8K", "err-data": "!"}),
        ),
    ]);
    let request = AgentRequest::Exec { command: vec!["sh".into(), "-c".into()], timeout_seconds: 5 };
    let done = ask(Some(&agent), &request).unwrap();
    assert_eq!(done, json!({"exitCode": 3, "stdout": "hello\n", "stderr": "", "truncated": false}));
    let told =
        json!({"execute": "guest-exec", "arguments": {"path": "sh", "arg": ["-c"], "capture-output": true}});
    assert_eq!(agent.heard.borrow()[0], told);
}

#[test]
fn what_goes_wrong_has_a_word() {
    let reason =
        |agent: Option<&dyn AgentChannel>, request: &AgentRequest| ask(agent, request).unwrap_err().reason();
    assert_eq!(reason(None, &AgentRequest::Ping), "AgentNotSupported");
    assert_eq!(reason(Some(&Parrot::default()), &AgentRequest::Ping), "AgentNotConnected");
    let odd = Parrot::new(&[
        ("guest-fsfreeze-freeze", json!("many")),
        ("guest-get-fsinfo", json!({})),
        ("guest-exec", json!({"pid": 1})),
        ("guest-exec-status", json!({})),
    ]);
    assert_eq!(reason(Some(&odd), &AgentRequest::Freeze), "AgentAnswerMalformed");
    assert_eq!(reason(Some(&odd), &AgentRequest::FileSystems), "AgentAnswerMalformed");
    let exec = |command: &[&str]| AgentRequest::Exec {
        command: command.iter().map(|w| (*w).to_owned()).collect(),
        timeout_seconds: 0,
    };
    assert_eq!(reason(Some(&odd), &exec(&["x"])), "AgentTimeout");
    assert_eq!(reason(Some(&odd), &exec(&[])), "Malformed");
}

#[test]
fn a_guest_that_says_too_much_is_cut_short() {
    let many: Vec<Value> = (0..5000).map(|n| json!({"user": "x".repeat(5000), "login-time": n})).collect();
    let agent = Parrot::new(&[("guest-get-users", json!(many))]);
    let users = ask(Some(&agent), &AgentRequest::Users).unwrap();
    assert_eq!(users.as_array().map(Vec::len), Some(LONGEST_LIST));
    assert_eq!(users[0]["userName"].as_str().map(str::len), Some(LONGEST_TEXT));
}
