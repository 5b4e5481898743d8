//! What a spec is answered with that is to run in a cluster, where that differs from one host.

use pinion_api::schema::{Schema, Status, Type};
use pinion_api::{Document, Place, VirtualMachine, VirtualMachineInstance, fields, parse, parse_at};

const GUEST: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {generateName: guest-}
spec:
  hostname: guest
  subdomain: guests
  nodeSelector: {kubernetes.io/os: linux}
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchExpressions: [{key: rack, operator: In, values: [a]}]}]
  tolerations: [{key: guests, operator: Exists}]
  priorityClassName: high
  dnsPolicy: None
  dnsConfig: {nameservers: [10.0.0.1]}
  domain:
    memory: {guest: 256Mi}
    firmware: {kernelBoot: {container: {image: example.com/kernel, kernelPath: /vmlinuz, imagePullPolicy: Never}}}
    devices:
      interfaces:
        - name: default
          masquerade: {}
          ports: [{name: web, port: 80}, {port: 53, protocol: UDP}]
          dhcpOptions: {ntpServers: [10.0.0.2], privateOptions: [{option: 240, value: a}]}
  networks: [{name: default, pod: {vmNetworkCIDR: 192.168.7.0/24}}]
";

const REPLICA_SET: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceReplicaSet
metadata: {name: three}
spec:
  replicas: 3
  selector: {matchLabels: {app: three}}
  template:
    metadata: {labels: {app: three}}
    spec:
      domain:
        memory: {guest: 256Mi}
        firmware: {kernelBoot: {container: {image: example.com/kernel, kernelPath: /vmlinuz}}}
        devices: {}
status: {replicas: 1, somethingOfAnotherVersion: true}
";

fn answer(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    match parse_at(Place::Cluster, text.replace(from, to)) {
        Ok(_) => "good".to_owned(),
        Err(problems) => {
            problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>().join("\n")
        }
    }
}

#[test]
fn what_chooses_a_node_and_is_about_the_pod_is_for_clusters() {
    parse_at(Place::Cluster, GUEST).unwrap_or_else(|problems| panic!("{problems}"));
    let problems = parse(GUEST).unwrap_err().to_string();
    for field in [
        "metadata.generateName",
        "spec.subdomain",
        "spec.nodeSelector",
        "spec.affinity",
        "spec.tolerations",
        "spec.priorityClassName",
        "spec.dnsPolicy",
        "spec.dnsConfig",
        "spec.domain.firmware.kernelBoot.container.imagePullPolicy",
        "spec.domain.devices.interfaces[0].masquerade",
        "spec.domain.devices.interfaces[0].ports",
        "spec.networks[0].pod",
    ] {
        assert!(problems.contains(&format!("{field}: for clusters only: ")), "{field}: {problems}");
    }
}

#[test]
fn every_field_for_clusters_works_there_and_says_what_to_do_on_one_host() {
    let mut seen = 0;
    for root in [VirtualMachine::TYPE, VirtualMachineInstance::TYPE] {
        for row in fields(&root, "").iter().filter(|row| row.own) {
            if let Status::Cluster(text) | Status::ClusterBoth(_, text) = row.status {
                assert!(!text.is_empty(), "{}", row.path);
                assert_eq!(row.status.at(Place::Cluster), Status::Works(""), "{}", row.path);
                assert_ne!(row.status.at(Place::Host), Status::Works(""), "{}", row.path);
                seen += 1;
            }
            if let Type::Choice(choice) = row.field.ty {
                seen += choice.values.iter().filter(|word| matches!(word.status, Status::Cluster(_))).count();
            }
        }
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn a_machine_may_always_run_in_a_cluster() {
    let machine = "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: a}\nspec:\n  runStrategy: Always\n  \
        template:\n    spec:\n      domain:\n        memory: {guest: 256Mi}\n        firmware: {kernelBoot: {container: \
        {image: a, kernelPath: b}}}\n        devices: {}\n";
    for of in ["runStrategy: Always", "runStrategy: RerunOnFailure", "running: true"] {
        assert_eq!(answer(machine, "runStrategy: Always", of), "good", "{of}");
    }
    assert_eq!(
        answer(machine, "  runStrategy: Always\n", ""),
        "spec.runStrategy: required: use Always or Manual"
    );
    assert_eq!(
        answer(machine, "runStrategy: Always", "runStrategy: Allways"),
        "spec.runStrategy: unknown value \"Allways\", did you mean \"Always\"?"
    );
}

#[test]
fn a_replica_set_is_read_for_a_cluster_and_selects_what_it_makes() {
    let documents = parse_at(Place::Cluster, REPLICA_SET).unwrap();
    let [Document::ReplicaSet(set)] = documents.as_slice() else { panic!("{documents:?}") };
    assert_eq!(set.spec.replicas, Some(3));
    assert!(set.spec.selector.matches(&[("app".to_owned(), "three".to_owned())].into()));
    let told = |from, to| answer(REPLICA_SET, from, to);
    assert!(
        told("labels: {app: three}", "labels: {app: four}")
            .starts_with("spec.template.metadata.labels: must have")
    );
    assert!(told("{matchLabels: {app: three}}", "{}").starts_with("spec.selector: required"));
    let strange = "{matchExpressions: [{key: app, operator: Near, values: [a]}]}";
    assert!(
        told("{matchLabels: {app: three}}", strange)
            .starts_with("spec.selector.matchExpressions[0]: has an unknown operator")
    );
    assert_eq!(told("replicas: 3", "replicas: -1"), "spec.replicas: must not be negative");
    let template = told("guest: 256Mi", "guest: 1");
    assert!(template.starts_with("spec.template.spec.domain.memory.guest: "), "{template}");
}

#[test]
fn the_pod_network_has_rules_of_its_own() {
    let told = |from, to| answer(GUEST, from, to);
    for (from, to, said) in [
        ("192.168.7.0/24", "192.168.7.0/31", "spec.networks[0].pod.vmNetworkCIDR: must be an IPv4 range"),
        ("port: 80", "port: 0", "spec.domain.devices.interfaces[0].ports[0].port: 0 is out of bounds"),
        (
            "protocol: UDP",
            "protocol: SCTP",
            "spec.domain.devices.interfaces[0].ports[1].protocol: must be TCP or UDP",
        ),
        (
            "port: 53, protocol: UDP",
            "port: 80",
            "spec.domain.devices.interfaces[0].ports[1]: is let through already",
        ),
        (
            "option: 240",
            "option: 1",
            "spec.domain.devices.interfaces[0].dhcpOptions.privateOptions[0].option: 1 is out",
        ),
        (
            "ntpServers: [10.0.0.2]",
            "ntpServers: [pool]",
            "spec.domain.devices.interfaces[0].dhcpOptions.ntpServers[0]",
        ),
        (
            "masquerade: {}",
            "bridge: {}",
            "spec.domain.devices.interfaces[0].ports: only masquerade holds ports back",
        ),
        (
            "pod: {vmNetworkCIDR: 192.168.7.0/24}",
            "multus: {networkName: a}",
            "spec.networks[0].multus: not implemented yet",
        ),
        (
            "networks: [{name: default,",
            "networks: [{name: other, pod: {}}, {name: default,",
            "spec.networks[1].pod: a pod has one network, and spec.networks[0] is it",
        ),
        (
            "image: example.com/kernel",
            "image: 'file:///boot'",
            "spec.domain.firmware.kernelBoot.container.image: for",
        ),
    ] {
        let answer = told(from, to);
        assert!(answer.lines().any(|line| line.starts_with(said)), "{said}: {answer}");
    }
}
