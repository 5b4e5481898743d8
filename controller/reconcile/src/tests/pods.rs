//! Pods as they are written, and as they are understood.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::instance_object;
use crate::Meta;
use crate::instance::Instance;
use crate::pod::{
    Launcher, LauncherImages, PodPhase, PodTrouble, PodView, launcher_pod, overhead_bytes, pod_name,
};

fn pod_of(object: &Value, threads_per_core: u64, block: &[&str]) -> Value {
    let instance = Instance::of(object);
    let block_claims: BTreeSet<String> = block.iter().map(|name| (*name).to_owned()).collect();
    let launcher = Launcher {
        images: &LauncherImages {
            native: "pinion.dev/launcher:0.1.0".to_owned(),
            libvirt: "pinion.dev/launcher-libvirt:0.1.0".to_owned(),
        },
        pull_policy: "IfNotPresent",
        node: "node-a",
        threads_per_core,
        attempt: 0,
        block_claims: &block_claims,
        claim_bytes: &[("data".to_owned(), 1 << 30)].into(),
    };
    launcher_pod(&instance.meta, instance.spec.as_ref().unwrap(), &launcher)
}

#[test]
fn a_pod_has_what_its_guest_needs_and_no_more() {
    insta::assert_yaml_snapshot!(pod_of(&instance_object("web"), 1, &["data"]));
}

#[test]
fn a_pod_of_dedicated_cpus_is_guaranteed_and_takes_whole_cores() {
    let pod = pod_of(&instance_object("web"), 2, &[]);
    let resources = &pod["spec"]["containers"][0]["resources"];
    assert_eq!(resources["requests"], resources["limits"]);
    assert_eq!(resources["limits"]["cpu"], "2");
    let mut odd = instance_object("web");
    odd["spec"]["domain"]["cpu"]["cores"] = 3.into();
    assert_eq!(pod_of(&odd, 2, &[])["spec"]["containers"][0]["resources"]["limits"]["cpu"], "4");
    assert_eq!(pod_of(&odd, 1, &[])["spec"]["containers"][0]["resources"]["limits"]["cpu"], "3");
    odd["spec"]["domain"]["ioThreadsPolicy"] = "supplementalPool".into();
    odd["spec"]["domain"]["ioThreads"] = json!({"supplementalPoolThreadCount": 1});
    assert_eq!(pod_of(&odd, 1, &[])["spec"]["containers"][0]["resources"]["limits"]["cpu"], "4");
}

#[test]
fn a_guest_on_qemu_has_its_own_image_and_what_qemu_needs() {
    let mut guest = instance_object("web");
    guest["spec"]["domain"]["devices"]["disks"] = json!([{"name": "root", "disk": {"bus": "sata"}}]);
    guest["spec"]["volumes"] = json!([{"name": "root", "containerDisk": {"image": "a"}}]);
    let native = |guest: &Value| {
        let mut guest = guest.clone();
        guest["spec"]["domain"]["devices"]["disks"][0]["disk"]["bus"] = "virtio".into();
        guest
    };
    let container = |guest: &Value| pod_of(guest, 2, &[])["spec"]["containers"][0].clone();
    let (qemu, own) = (container(&guest), container(&native(&guest)));
    assert_eq!(qemu["image"], "pinion.dev/launcher-libvirt:0.1.0");
    assert_eq!(own["image"], "pinion.dev/launcher:0.1.0");
    assert_eq!(qemu["args"], own["args"]);
    let tun = |container: &Value| container["resources"]["limits"]["devices.kubevirt.io/tun"].clone();
    assert_eq!((tun(&qemu), tun(&own)), (json!("1"), Value::Null));
    let overhead = |guest: &Value| overhead_bytes(&Instance::of(guest).spec.unwrap());
    let more = overhead(&guest) - overhead(&native(&guest));
    assert_eq!(more, (96 - 40 + 34 - 2) << 20);
    let mut seen = guest.clone();
    seen["spec"]["domain"]["devices"]["autoattachGraphicsDevice"] = true.into();
    assert_eq!(overhead(&seen) - overhead(&guest), 32 << 20);
    // Whoever asks for it gets it.
    let mut asked = native(&guest);
    asked["metadata"]["annotations"] = json!({"pinion.dev/backend": "libvirt"});
    assert_eq!(container(&asked)["image"], "pinion.dev/launcher-libvirt:0.1.0");
}

#[test]
fn a_guest_that_shares_cpus_is_promised_a_tenth_and_may_use_all() {
    let mut shared = instance_object("web");
    shared["spec"]["domain"]["cpu"] = json!({"cores": 2});
    shared["spec"]["domain"]["memory"] = json!({"guest": "128Mi"});
    let resources = pod_of(&shared, 2, &[])["spec"]["containers"][0]["resources"].clone();
    assert_eq!((&resources["requests"]["cpu"], &resources["limits"]["cpu"]), (&json!("200m"), &Value::Null));
    let instance = Instance::of(&shared).spec.unwrap();
    let memory = (128 << 20) + overhead_bytes(&instance);
    assert_eq!(resources["limits"]["memory"], memory.to_string());
    shared["spec"]["domain"]["resources"] = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1500m"}});
    let resources = pod_of(&shared, 2, &[])["spec"]["containers"][0]["resources"].clone();
    assert_eq!((&resources["requests"]["cpu"], &resources["limits"]["cpu"]), (&json!("1"), &json!("1500m")));
}

#[test]
fn the_guest_in_the_pod_is_the_instance_with_every_default() {
    let pod = pod_of(&instance_object("web"), 1, &[]);
    let text = pod["metadata"]["annotations"]["pinion.dev/instance"].as_str().unwrap();
    let again = pinion_api::parse_at(pinion_api::Place::Cluster, text).unwrap().remove(0).into_instance();
    assert_eq!(again.full_name(), "default/web");
    assert_eq!(again.spec, Instance::of(&instance_object("web")).spec.unwrap().spec);
    assert!(!text.contains("last-applied"));
}

#[test]
fn a_pods_name_is_its_instances_and_the_attempts_alone() {
    let meta = |name: &str, uid: &str| Meta { name: name.into(), uid: uid.into(), ..Meta::default() };
    assert_eq!(pod_name(&meta("a", "1"), 0), pod_name(&meta("a", "1"), 0));
    let names =
        [(meta("a", "1"), 0), (meta("a", "1"), 1), (meta("a", "2"), 0)].map(|(meta, n)| pod_name(&meta, n));
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 3, "{names:?}");
    assert!(names[0].starts_with("virt-launcher-a-"), "{names:?}");
    assert!(pod_name(&meta(&"n".repeat(253), "1"), 0).len() <= 253);
    let mut long = instance_object("web");
    long["metadata"]["name"] = format!("{}.{}", "n".repeat(60), "n".repeat(40)).into();
    let pod = pod_of(&long, 1, &[]);
    let label = pod["metadata"]["labels"]["vmi.kubevirt.io/id"].as_str().unwrap();
    assert_eq!(label.len(), 63);
    assert_eq!(pod["spec"]["hostname"], Value::Null);
}

#[test]
fn what_a_pod_says_of_itself_is_understood() {
    let of = |status: Value| {
        PodView::of(&json!({"metadata": {"name": "p"}, "spec": {"nodeName": "a"}, "status": status}))
    };
    let turned_away = of(json!({"phase": "Failed", "reason": "TopologyAffinityError", "message": "no"}));
    assert_eq!(
        turned_away.trouble,
        Some(PodTrouble::TurnedAway("TopologyAffinityError".into(), "no".into()))
    );
    let short = of(json!({"phase": "Failed", "reason": "OutOfhugepages-2Mi", "message": "no"}));
    assert!(matches!(short.trouble, Some(PodTrouble::TurnedAway(..))));
    // Its guest ran: it is not the kubelet's doing.
    let evicted = of(json!({
        "phase": "Failed", "reason": "OutOfmemory",
        "containerStatuses": [{"name": "compute", "state": {"terminated": {"exitCode": 10, "message": "x\n"}}}],
    }));
    assert_eq!((evicted.trouble, evicted.exit), (None, Some((10, "x".to_owned()))));
    let waiting = of(json!({
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "full"}],
    }));
    assert_eq!(waiting.trouble, Some(PodTrouble::Unschedulable("full".into())));
    let image = of(json!({
        "phase": "Pending",
        "containerStatuses": [{"name": "compute", "state": {"waiting": {"reason": "ErrImagePull", "message": "m"}}}],
    }));
    assert_eq!(image.trouble, Some(PodTrouble::Image("ErrImagePull".into(), "m".into())));
    let runs = of(json!({
        "phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "qosClass": "Guaranteed",
        "conditions": [{"type": "Ready", "status": "True"}],
    }));
    assert_eq!(
        (runs.phase, runs.is_ready, runs.addresses.len(), runs.is_over()),
        (PodPhase::Running, true, 2, false)
    );
    for strange in [json!(null), json!(1), json!({"conditions": 1, "containerStatuses": [1, null]})] {
        let strange = of(strange);
        assert_eq!((strange.phase, strange.trouble), (PodPhase::Pending, None));
    }
}
