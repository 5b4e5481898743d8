//! What dedicated CPUs give, measured on a lab host. Absolute figures mean nothing there: that the measurement is
//! whole does, and that a stall is seen and blamed on who caused it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod lab;

use std::process::Command;

use lab::{LONG, QUICK, both, must, on_lab, sh};
use pinion_lab::{Files, Lab, Shape};
use serde_json::Value;

#[test]
fn a_stall_is_seen_and_blamed_on_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let staller = folder.path().join("staller");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/staller.c");
    let built = Command::new("cc").args(["-O1", "-static", "-o"]).arg(&staller).arg(source).status().unwrap();
    assert!(built.success());
    let files = Files::new().with("/bin/staller", &staller);
    on_lab("qualify", &Shape::small(), "true", &files, |lab| {
        must(lab, "mount -t tracefs tracefs /sys/kernel/tracing", QUICK);
        all_phases(lab);
        stalled(lab);
        wrong_input(lab);
        interrupted(lab);
        assert_eq!(must(lab, "ls -d /sys/fs/cgroup/pinion.* 2>/dev/null | wc -l", QUICK), "0\n");
    });
}

/// Both subjects, idle and loaded; the result is kept and drawn.
fn all_phases(lab: &Lab) {
    let text = must(lab, "pinion qualify --cpus 4,5 --for 1 --plot /gaps.svg", LONG / 2);
    println!("{text}");
    for words in [
        "guest under load none",
        "guest under load memory",
        "host under load none",
        "host under load memory",
        "P99.999",
        "latency class",
        "isolated",
        "UP TO",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let kept: Value =
        serde_json::from_str(&must(lab, "cat /var/lib/pinion/qualification.json", QUICK)).unwrap();
    assert_eq!(kept["phases"].as_array().unwrap().len(), 4);
    for phase in kept["phases"].as_array().unwrap() {
        for result in phase["results"].as_array().unwrap() {
            let counts = result["histogram"].as_array().unwrap();
            let all: u64 = counts.iter().map(|pair| pair[1].as_u64().unwrap()).sum();
            assert_eq!(Some(all), result["samples"].as_u64(), "no gap is missing");
            assert!(all > 1000);
        }
    }
    assert!(must(lab, "cat /gaps.svg", QUICK).starts_with("<svg"));
}

/// A real-time process takes the CPU for 5 ms now and then.
fn stalled(lab: &Lab) {
    let script = "pinion qualify --cpus 4,5 --for 3 --subject SUBJECT --load none --blame-from 1ms -o json --no-save \
        > /q.json 2> /q.log & \
        for i in $(seq 300); do G=$(ls -d /sys/fs/cgroup/pinion.*/cpus-5 2>/dev/null) && break; sleep 0.1; done; \
        sleep 0.5; staller $G/cgroup.threads 5 8 || exit 1; wait; cat /q.json";
    for subject in ["guest", "host"] {
        let output = sh(lab, &script.replace("SUBJECT", subject), LONG / 2);
        let result: Value =
            serde_json::from_slice(&output.output).unwrap_or_else(|e| panic!("{e}: {}", both(&output)));
        let stalled = &result["phases"][0]["results"][1];
        assert_eq!(stalled["cpu"], 5);
        assert!(stalled["maxNs"].as_f64().unwrap() >= 5e6, "{}", stalled["maxNs"]);
        let causes = stalled["causes"].as_array().unwrap();
        let blamed = causes.iter().find(|c| c["what"].as_str().unwrap().starts_with("process staller"));
        let blamed = blamed.unwrap_or_else(|| panic!("{subject}: {causes:#?}"));
        assert!(blamed["worstNs"].as_u64().unwrap() >= 5_000_000, "{blamed}");
        println!("{subject}: {blamed}");
    }
}

/// Ended by Ctrl-C, and killed: what it changed comes back, at once or with the next command.
fn interrupted(lab: &Lab) {
    let groups = "ls -d /sys/fs/cgroup/pinion.*/cpus-4 > /dev/null 2>&1";
    for (signal, code) in [("INT", 1), ("KILL", 137)] {
        let script = format!(
            "(pinion qualify --cpus 4 --for 60 --subject host --no-save; echo \"code $?\") > /i.log 2>&1 & \
                for i in $(seq 300); do {groups} && break; sleep 0.1; done; sleep 1; kill -{signal} $(pidof pinion); wait; \
                tail -1 /i.log; pinion restore > /dev/null; cat /proc/sys/vm/stat_interval; \
                ls -d /sys/fs/cgroup/pinion.* 2>/dev/null | wc -l"
        );
        assert_eq!(must(lab, &script, LONG / 2), format!("code {code}\n1\n0\n"), "{signal}");
    }
}

fn wrong_input(lab: &Lab) {
    for (words, said) in [
        ("--cpus 99", "CPUs 99 are not online"),
        ("--cpus 0", "housekeeping"),
        ("--for 0", "give 1 s to 24 h"),
        ("--blame-from 5", "give a time such as"),
    ] {
        let output = sh(lab, &format!("pinion qualify {words}"), QUICK);
        assert_eq!(output.code, Some(2), "{}", both(&output));
        assert!(both(&output).contains(said), "{}", both(&output));
    }
}
