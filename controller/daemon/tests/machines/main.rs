//! Pinion on a real kubelet, from its manifests to nothing left: the machine of KubeVirt's own guide from its disk, one with
//! a core, pages and a device of its own, whatever is killed meanwhile.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is wrong")]

mod guests;
mod images;
mod stage;

use std::thread;
use std::time::Duration;

use guests::{Guest, OWN, SEED, on_qemu};
use images::VERSIONS;
use pinion_lab::Cache;
use pinion_lab_cluster::ClusterPrograms;
use stage::{Stage, Victim, manifests};

/// Between one that is killed and the next.
const A_MOMENT: Duration = Duration::from_secs(2);

#[test]
fn machines_run_on_a_real_kubelet_and_answer_whatever_is_killed() {
    if !ClusterPrograms::are_ready(&Cache::of_user()) {
        println!("skipped: Kubernetes is not built here: `cargo xtask setup --cluster` builds it");
        return;
    }
    let mut stage = Stage::installed();
    offered(&stage);
    stage.apply(SEED);
    stage.apply(OWN);
    let _ = stage
        .kubectl(&["patch", "vm", "testvm", "--type=merge", "-p", r#"{"spec": {"running": true}}"#])
        .unwrap();
    let client = "pinion.dev/lab/busybox:1";
    let _ = stage.kubectl(&["run", "client", &format!("--image={client}"), "--restart=Never"]).unwrap();
    let own = Guest::running(&stage, "own");
    let seeded = Guest::running(&stage, "testvm");
    let page = own.page(&stage);
    assert!(page.contains(" disk=none cpus=2 core=0-1 functions=1 sata=0 tpm=0"), "{page}");
    own.is_where_its_status_says(&stage);
    let page = seeded.page(&stage);
    assert!(page.contains("disk=own seed=Hi."), "{page}");
    stage.imported(&format!("pinion.dev/launcher-libvirt:{}", VERSIONS[0]));
    stage.apply(&on_qemu());
    let other = Guest::running(&stage, "on-qemu");
    let page = other.page(&stage);
    assert!(page.contains(" disk=own cpus=2 core=0-1 functions=1 sata=1 tpm=1"), "{page}");
    other.is_where_its_status_says(&stage);
    counted(&stage, [&own, &seeded, &other]);
    let all = [own, seeded, other];

    killed_while_they_run(&mut stage, &all);
    upgraded(&stage, &all);
    killed_while_they_end(&mut stage, &all);
    killed_while_it_starts(&mut stage);
    removed(&stage);
}

/// Waits for the node to say what it has.
fn offered(stage: &Stage) {
    stage.until(&["get", "node", "node-1", "-o", "jsonpath={.status.allocatable}"], |said| {
        ["\"pinion.dev/agent\":\"1k\"", "\"devices.kubevirt.io/kvm\":\"1k\"", "\"example.com/edu\":\"2\""]
            .iter()
            .all(|part| said.contains(part))
    });
    stage.until(&["get", "nodeledger", "node-1", "-o", "jsonpath={.status.machine.domains}"], |said| {
        said.contains("cores")
    });
}

/// The agent's page has every guest's metrics, with what a dashboard joins them by.
fn counted(stage: &Stage, guests: [&Guest; 3]) {
    let agent = stage.field(
        &["pods", "-n", "pinion-system", "-l", "app.kubernetes.io/name=pinion-agent"],
        "{.items[0].status.podIP}",
    );
    let ask = format!(
        "printf 'GET /metrics HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' | nc -w 5 {agent} 9180"
    );
    let of = |name: &str| format!("name=\"{name}\",namespace=\"default\",node=\"node-1\"");
    let page = stage.until(&["exec", "client", "--", "sh", "-c", &ask], |said| {
        guests.iter().all(|guest| said.contains(&of(guest.name)))
    });
    for guest in guests {
        let info = page
            .lines()
            .find(|l| l.starts_with("kubevirt_vmi_info{") && l.contains(&of(guest.name)))
            .unwrap();
        assert!(
            info.contains("phase=\"Running\"") && info.contains(&format!("vmi_pod=\"{}\"", guest.pod.0)),
            "{info}"
        );
        assert!(
            page.lines()
                .any(|l| l.starts_with("kubevirt_vmi_vcpu_seconds_total{") && l.contains(&of(guest.name)))
        );
    }
}

fn killed_while_they_run(stage: &mut Stage, guests: &[Guest]) {
    for victim in Victim::ALL {
        stage.kill(victim);
        guests.iter().for_each(|guest| guest.goes_on(stage));
    }
    for dedicated in guests.iter().filter(|guest| guest.name != "testvm") {
        dedicated.is_where_its_status_says(stage);
    }
}

/// Everything of Pinion is replaced but the launchers, which are what their guests run in.
fn upgraded(stage: &Stage, guests: &[Guest]) {
    let overlay = stage.overlay("after", VERSIONS[1], &manifests());
    stage.install(&overlay);
    let images = stage.field(&["pods", "-n", "pinion-system"], "{.items[*].spec.containers[*].image}");
    assert!(images.split(' ').any(|image| image.ends_with(":next")), "{images}");
    guests.iter().for_each(|guest| guest.goes_on(stage));
}

fn killed_while_they_end(stage: &mut Stage, guests: &[Guest]) {
    for guest in guests {
        let _ = stage.kubectl(&["delete", "vm", guest.name, "--wait=false"]).unwrap();
    }
    for victim in Victim::ALL {
        stage.kill(victim);
        thread::sleep(A_MOMENT);
    }
    nothing_is_left(stage);
}

fn killed_while_it_starts(stage: &mut Stage) {
    stage.apply(OWN);
    for victim in [Victim::Controllers, Victim::Agent, Victim::Kubelet, Victim::Server] {
        stage.kill(victim);
        thread::sleep(A_MOMENT);
    }
    let own = Guest::running(stage, "own");
    own.is_where_its_status_says(stage);
    assert_eq!(
        stage.field(&["pods", "-l", "kubevirt.io=virt-launcher"], "{.items[*].status.phase}"),
        "Running"
    );
}

/// While there are machines, what serves them stays; then all of it goes.
fn removed(stage: &Stage) {
    let overlay = stage.overlay("after", VERSIONS[1], &manifests());
    let refused = stage.kubectl(&["delete", "-k", &overlay]).unwrap_err();
    for said in [
        "Namespace pinion-system",
        "DaemonSet pinion-agent",
        "CustomResourceDefinition virtualmachines.kubevirt.io",
    ] {
        let said = format!("{said} belongs to Pinion, which serves VirtualMachine default/own");
        assert!(refused.contains(&said), "{said}: {refused}");
    }
    let _ = stage.kubectl(&["delete", "vm", "own", "--wait=false"]).unwrap();
    nothing_is_left(stage);
    let said = stage.kubectl(&["delete", "-k", &overlay, "--timeout=120s"]).unwrap();
    assert!(said.contains("\"pinion-system\" deleted"), "{said}");
    stage.until(&["get", "crds", "-o", "name"], |said| {
        !said.contains("kubevirt.io") && !said.contains("pinion.dev")
    });
    stage.until(&["get", "namespaces", "-o", "name"], |said| !said.contains("pinion-system"));
    let hooks = ["get", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "-o", "name"];
    stage.until(&hooks, |said| said.trim().is_empty());
    let roles = ["get", "clusterroles,clusterrolebindings", "-o", "name"];
    stage.until(&roles, |said| !said.contains("pinion"));
}

/// Of guests, on the API server and on the node.
fn nothing_is_left(stage: &Stage) {
    stage.until(&["get", "vm,vmi", "-o", "name"], |said| said.trim().is_empty());
    stage.until(&["get", "pods", "-l", "kubevirt.io=virt-launcher", "-o", "name"], |said| {
        said.trim().is_empty()
    });
    let ledger = ["get", "nodeledger", "node-1", "-o", "jsonpath={.spec.bookings}{.status.guests[*].phase}"];
    stage.until(&ledger, |said| matches!(said, "" | "[]"));
    let left = "pgrep -x pinion-launcher; pgrep -x qemu-system-x86; pgrep -x swtpm; find /sys/fs/cgroup -name 'pinion.*'; ls /run/pinion/guests 2> /dev/null; true";
    stage.until_said(left, "");
}
