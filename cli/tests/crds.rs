//! The kinds of `kubevirt.io/v1` on a real API server: `manifests/crds`, asked with kubectl.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is wrong")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use pinion_lab::Cache;
use pinion_lab_cluster::{Cluster, ClusterPrograms, Options};
use pinion_node_agent::Knob;

const SOON: Duration = Duration::from_secs(60);
/// KubeVirt's three, `NodeLedger` and `NodeProfile`.
const KINDS: usize = 5;

const REPLICA_SET: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceReplicaSet
metadata: {name: three}
spec:
  replicas: 1
  selector: {matchLabels: {app: three}}
  template:
    metadata: {labels: {app: three}}
    spec: {domain: {devices: {}, memory: {guest: 128Mi}}}
";

const THEIRS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: virtualmachines.kubevirt.io}
spec:
  group: kubevirt.io
  scope: Namespaced
  names: {kind: VirtualMachine, plural: virtualmachines, singular: virtualmachine, shortNames: [vm, vms]}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, description: KubeVirt's own}}}
";

fn manifests(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(of)
}

#[test]
fn an_api_server_takes_the_kinds_and_kubectl_shows_them_as_it_shows_kubevirts() {
    if !ClusterPrograms::are_ready(&Cache::of_user()) {
        println!("skipped: Kubernetes is not built here: `cargo xtask setup --cluster` builds it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // An API server is all that it takes.
    let options = Options::of_nodes(0, &folder.path().join("cluster"));
    let cluster = Cluster::up(&options, &mut |_, _| ()).unwrap();
    let kubectl = |words: &[&str]| cluster.kubectl(words).unwrap();
    let crds = manifests("crds").display().to_string();
    beside_kubevirt(&cluster, folder.path());
    assert_eq!(kubectl(&["apply", "-k", &crds]).lines().filter(|l| l.ends_with(" created")).count(), KINDS);
    let again = cluster.kubectl(&["diff", "-k", &crds]);
    assert!(again.is_ok(), "{again:?}");
    let again = kubectl(&["apply", "-k", &crds]);
    assert_eq!(again.lines().filter(|l| l.ends_with(" unchanged")).count(), KINDS, "{again}");
    let _ = kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
    // What kubectl knows of the kinds comes from the server's document, which is made a moment later.
    cluster.until(&["explain", "vmi.spec.domain"], SOON, |text| text.contains("cpu")).unwrap();

    examples(&cluster);
    profiles(&cluster, folder.path());
    refused(&cluster, folder.path());
    scaled(&cluster, folder.path());
    let told = kubectl(&["explain", "vmi.spec.domain.cpu.dedicatedCpuPlacement"]);
    assert!(told.contains("<boolean>") && told.contains("CPU"), "{told}");
    let told = kubectl(&["explain", "vm.spec.runStrategy"]);
    assert!(told.contains("<string>"), "{told}");
}

/// Kinds that KubeVirt's operator has made are not overwritten by whoever follows the README.
fn beside_kubevirt(cluster: &Cluster, folder: &Path) {
    let theirs = folder.join("theirs.yaml");
    std::fs::write(&theirs, THEIRS).unwrap();
    let theirs = theirs.display().to_string();
    let _ = cluster.kubectl(&["create", "--field-manager=virt-operator", "-f", &theirs]).unwrap();
    // One that is deleted before it is served stays for minutes.
    let served = ["wait", "--for=condition=Established", "crd/virtualmachines.kubevirt.io", "--timeout=60s"];
    let _ = cluster.kubectl(&served).unwrap();
    let ours = manifests("crds/virtualmachines.yaml").display().to_string();
    let refused = cluster.kubectl(&["apply", "--server-side", "-f", &ours]).unwrap_err().to_string();
    assert!(
        refused.contains("conflict with \"virt-operator\"") && refused.contains(".spec.versions"),
        "{refused}"
    );
    let kept = ["get", "crd", "virtualmachines.kubevirt.io", "-o", "jsonpath={.spec.versions[0].schema}"];
    assert!(cluster.kubectl(&kept).unwrap().contains("KubeVirt's own"));
    let _ = cluster.kubectl(&["delete", "crd", "virtualmachines.kubevirt.io"]).unwrap();
}

/// Every example is taken as it is, and comes back as it was.
fn examples(cluster: &Cluster) {
    for name in ["deterministic", "passthrough", "realtime", "shared"] {
        let file = manifests("examples").join(format!("{name}.yaml")).display().to_string();
        let _ = cluster.kubectl(&["apply", "--validate=strict", "-f", &file]).unwrap();
        let again = cluster.kubectl(&["diff", "-f", &file]);
        assert!(again.is_ok(), "{name}: {again:?}");
    }
    let all = cluster.kubectl(&["get", "vms,vmis", "-o", "name"]).unwrap();
    assert_eq!(all.lines().count(), 4, "{all}");
    let wide = cluster.kubectl(&["get", "vmi", "-o", "wide"]).unwrap();
    if !wide.is_empty() {
        assert!(wide.contains("PHASE") && wide.contains("DETERMINISTIC"), "{wide}");
    }
}

/// The profile that a host has as a file is taken as it is; what it cannot say is refused by its path, and each switch that agents
/// know is known.
fn profiles(cluster: &Cluster, folder: &Path) {
    let example = manifests("examples").join("profile.yaml").display().to_string();
    let _ = cluster.kubectl(&["apply", "--validate=strict", "-f", &example]).unwrap();
    let file = folder.join("profile.yaml");
    let name = file.display().to_string();
    let of = |spec: &str| {
        let text = format!(
            "apiVersion: pinion.dev/v1alpha1\nkind: NodeProfile\nmetadata: {{name: other}}\nspec: {spec}\n"
        );
        std::fs::write(&file, text).unwrap();
        cluster.kubectl(&["apply", "-f", &name])
    };
    let knobs: Vec<String> = Knob::ALL.iter().map(|knob| knob.id()).collect();
    let _ = of(&format!("{{nodeSelector: {{rack: a}}, knobs: [{}]}}", knobs.join(", "))).unwrap();
    for (spec, said) in [
        ("{dedicated: all}", "spec.dedicated"),
        ("{knobs: [colour]}", "spec.knobs[0]"),
        ("{hugePages: [{node: 0, pageSize: 3Mi, count: 1}]}", "spec.hugePages[0].pageSize"),
        ("{colour: red}", "spec.colour"),
    ] {
        let error = of(spec).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
}

/// What has no place in them is refused by its path.
fn refused(cluster: &Cluster, folder: &Path) {
    let file = folder.join("wrong.yaml");
    let name = file.display().to_string();
    for (from, to, said) in [
        ("guest: 128Mi", "guest: [1]", "spec.template.spec.domain.memory.guest"),
        ("replicas: 1", "replicas: one", "spec.replicas"),
        (
            "    spec: {domain: {devices: {}, memory: {guest: 128Mi}}}",
            "    spec: {}",
            "spec.template.spec.domain",
        ),
    ] {
        assert!(REPLICA_SET.contains(from), "{from}");
        std::fs::write(&file, REPLICA_SET.replace(from, to)).unwrap();
        let error = cluster.kubectl(&["apply", "-f", &name]).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// Replica sets are scaled, and a machine's status is written apart from what it is.
fn scaled(cluster: &Cluster, folder: &Path) {
    let file = folder.join("three.yaml");
    std::fs::write(&file, REPLICA_SET).unwrap();
    let _ = cluster.kubectl(&["apply", "-f", &file.display().to_string()]).unwrap();
    let _ = cluster.kubectl(&["scale", "vmirs", "three", "--replicas=3"]).unwrap();
    let replicas = cluster.kubectl(&["get", "vmirs", "three", "-o", "jsonpath={.spec.replicas}"]).unwrap();
    assert_eq!(replicas, "3");
    let machine = "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: halted}\nspec:\n  \
        runStrategy: Halted\n  template: {spec: {domain: {devices: {}, memory: {guest: 128Mi}}}}\n";
    std::fs::write(&file, machine).unwrap();
    let _ = cluster.kubectl(&["apply", "-f", &file.display().to_string()]).unwrap();
    let status = r#"{"status": {"printableStatus": "Stopped", "memoryDumpRequest": {"claimName": "a"}}}"#;
    let patch = ["patch", "vm", "halted", "--subresource=status", "--type=merge", "-p", status];
    let _ = cluster.kubectl(&patch).unwrap();
    let shown = cluster.kubectl(&["get", "vm", "halted"]).unwrap();
    assert!(shown.contains("STATUS") && shown.contains("Stopped"), "{shown}");
    let kept =
        cluster.kubectl(&["get", "vm", "halted", "-o", "jsonpath={.status.memoryDumpRequest}"]).unwrap();
    assert!(kept.contains("claimName"), "what others wrote stays: {kept}");
}
