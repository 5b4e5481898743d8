//! Requests to the agent's socket, line after line, from its own process, its parent and others: whatever is said, the
//! ledger stays one that can be read, and others change nothing of what is held.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pinion_endpoint::Peer;
use pinion_endpoint::guest::GuestRequest;
use pinion_node_agent::fake::FakeAgent;

/// Most lines of one input.
const MOST: usize = 12;

fuzz_target!(|input: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    let mut agent = FakeAgent::new(folder.path());
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for line in input.split(|b| *b == b'\n').take(MOST) {
        let Some((who, request)) = line.split_first() else { continue };
        let peer = match who % 4 {
            0 => Peer { pid: own, uid: 0, gid: 0 },
            1 => Peer { pid: own, uid: 4242, gid: 4242 },
            2 => Peer { pid: 1, uid: 0, gid: 0 },
            _ => Peer { pid: -1, uid: 4242, gid: 0 },
        };
        let before = agent.ledger().read().expect("a ledger that can be read");
        let answer = agent.ask(peer, request);
        let after = agent.ledger().read().expect("a ledger that can be read");
        if answer.is_err() && before != after {
            assert!(after.holdings.len() <= before.holdings.len() + 1, "a refusal took something");
        }
        if peer.pid != own {
            let held = |d: &pinion_node_agent::LedgerDocument| {
                d.holdings.iter().filter(|e| e.process.pid == own).cloned().collect::<Vec<_>>()
            };
            assert_eq!(held(&before), held(&after), "another process changed what is held");
        }
        let _: Result<GuestRequest, _> = serde_json::from_slice(request);
    }
});
