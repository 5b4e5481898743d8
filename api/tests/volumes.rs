//! Volumes of guests in a cluster: what is accepted, what is told by path, and where a pod has them.

#![expect(clippy::panic, reason = "a test's own tools may fail it")]

use std::path::Path;

use pinion_api::{Document, Place, PodMount, PodSource, PodVolumes, VirtualMachineInstance, parse, parse_at};

const HEAD: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: guest}
spec:
  domain:
    memory: {guest: 256Mi}
    devices: {disks: [DISKS]}
  volumes:
";

/// One of each kind that works in a cluster.
const ALL: &str = "\
root {containerDisk: {image: 'quay.io/containerdisks/debian:13', imagePullPolicy: Always, imagePullSecret: key}}
data {persistentVolumeClaim: {claimName: data.claim}}
archive {persistentVolumeClaim: {claimName: archive, readOnly: true}}
made {dataVolume: {name: made}}
base {ephemeral: {persistentVolumeClaim: {claimName: base}}}
scratch {emptyDisk: {capacity: 2Gi}}
host {hostDisk: {path: /srv/images/host.img, type: DiskOrCreate, capacity: 1Gi, shared: true}}
map {configMap: {name: map, optional: true, volumeLabel: settings}}
word {secret: {secretName: word}}
pod {downwardAPI: {fields: [{path: pod/labels, fieldRef: {fieldPath: metadata.labels}}]}}
seed {cloudInitConfigDrive: {secretRef: {name: user}, networkDataSecretRef: {name: network}}}
";

/// A guest with such volumes, each on a disk.
fn guest(volumes: &str) -> String {
    let volumes: Vec<(&str, &str)> = volumes.lines().filter_map(|line| line.split_once(' ')).collect();
    let disks: Vec<String> = volumes.iter().map(|(name, _)| format!("{{name: {name}}}")).collect();
    let list = volumes.iter().map(|(name, rest)| format!("    - {{name: {name}, {}\n", &rest[1..]));
    HEAD.replace("DISKS", &disks.join(", ")) + &list.collect::<String>()
}

fn read(text: &str) -> VirtualMachineInstance {
    match parse_at(Place::Cluster, text).unwrap_or_else(|problems| panic!("{problems}\n{text}")).remove(0) {
        Document::VirtualMachineInstance(instance) => *instance,
        other => panic!("{other:?}"),
    }
}

fn told(place: Place, text: &str) -> String {
    match parse_at(place, text) {
        Ok(_) => "good".to_owned(),
        Err(problems) => problems.iter().map(|p| format!("{}: {}\n", p.path, p.message)).collect::<String>(),
    }
}

#[test]
fn one_host_has_hosts_disks_empty_disks_and_cloud_init_and_says_so_of_the_others() {
    let text = guest(ALL);
    read(&text);
    let problems = parse(&text).unwrap_err().to_string();
    for (index, kind, is_there) in [
        (0, "containerDisk", false),
        (1, "persistentVolumeClaim", false),
        (3, "dataVolume", false),
        (4, "ephemeral", false),
        (5, "emptyDisk", true),
        (6, "hostDisk", true),
        (7, "configMap", false),
        (8, "secret", false),
        (9, "downwardAPI", false),
        (10, "cloudInitConfigDrive.secretRef", false),
        (10, "cloudInitConfigDrive.networkDataSecretRef", false),
    ] {
        let said = format!("spec.volumes[{index}].{kind}: for clusters only: ");
        assert_eq!(!problems.contains(&said), is_there, "{said}: {problems}");
    }
    assert!(!problems.contains("nothing to boot"), "{problems}");
    let here = "root {hostDisk: {path: /a, type: Disk}}\nempty {emptyDisk: {capacity: 1Gi}}\n\
                seed {cloudInitConfigDrive: {userData: a}}\n";
    parse(guest(here)).unwrap();
}

#[test]
fn what_is_wrong_with_a_volume_is_told_by_its_path() {
    for (volume, said) in [
        ("{persistentVolumeClaim: {}}", "persistentVolumeClaim.claimName: required"),
        ("{persistentVolumeClaim: {claimName: ''}}", "persistentVolumeClaim.claimName: required"),
        (
            "{persistentVolumeClaim: {claimName: A_B}}",
            "persistentVolumeClaim.claimName: \"A_B\" is not a DNS",
        ),
        (
            "{persistentVolumeClaim: {claimName: a, hotpluggable: true}}",
            "persistentVolumeClaim.hotpluggable: must be false",
        ),
        ("{dataVolume: {name: a, hotpluggable: true}}", "dataVolume.hotpluggable: must be false"),
        ("{ephemeral: {}}", "ephemeral.persistentVolumeClaim: required"),
        ("{containerDisk: {path: /disk/a}}", "containerDisk.image: required"),
        ("{containerDisk: {image: ''}}", "containerDisk.image: required"),
        ("{containerDisk: {image: 'file:///a'}}", "containerDisk.image: is no name of an image"),
        ("{containerDisk: {image: a, path: disk/a}}", "containerDisk.path: must be the absolute"),
        ("{containerDisk: {image: a, path: /disk/../a}}", "containerDisk.path: must be the absolute"),
        ("{containerDisk: {image: a, path: /}}", "containerDisk.path: must be the absolute"),
        (
            "{containerDisk: {image: a, imagePullPolicy: Now}}",
            "containerDisk.imagePullPolicy: must be one of",
        ),
        ("{emptyDisk: {}}", "emptyDisk.capacity: required"),
        ("{emptyDisk: {capacity: 0}}", "emptyDisk.capacity: 0 is no size of a disk"),
        ("{emptyDisk: {capacity: -1Gi}}", "emptyDisk.capacity: -1Gi is no size of a disk"),
        ("{configMap: {}}", "configMap.name: required: which config map?"),
        ("{secret: {}}", "secret.secretName: required: which secret?"),
        ("{secret: {secretName: a, volumeLabel: longer than it}}", "secret.volumeLabel: must be at most 11"),
        (
            "{downwardAPI: {fields: [{path: ../a, fieldRef: {fieldPath: a}}]}}",
            "downwardAPI.fields[0].path: must",
        ),
        ("{downwardAPI: {fields: [{path: a}]}}", "downwardAPI.fields[0]: required: use fieldRef"),
        ("{cloudInitNoCloud: {secretRef: {}}}", "cloudInitNoCloud.secretRef.name: required: which secret?"),
        (
            "{cloudInitNoCloud: {secretRef: {name: a}, userData: b}}",
            "cloudInitNoCloud: userData and secretRef",
        ),
        ("{cloudInitConfigDrive: {}}", "cloudInitConfigDrive: required: give userData"),
        ("{cloudInitConfigDrive: {userDataBase64: '*'}}", "cloudInitConfigDrive.userDataBase64: not base64"),
        ("{hostDisk: {path: /dev/sda, type: Disk}}", "hostDisk.path: a pod may not open devices"),
        ("{serviceAccount: {serviceAccountName: a}}", "serviceAccount: not implemented yet"),
        ("{}", ": required: what does it hold? use containerDisk"),
    ] {
        let text = guest(&format!("root {{containerDisk: {{image: a}}}}\nbad {volume}\n"))
            .replace("name: bad, }", "name: bad}");
        let answer = told(Place::Cluster, &text);
        let dot = if said.starts_with(':') { "" } else { "." };
        let said = format!("spec.volumes[1]{dot}{said}");
        assert!(answer.starts_with(&said) && answer.lines().count() == 1, "{said}\n{answer}");
    }
}

#[test]
fn a_claim_is_one_disk_unless_it_only_lies_below() {
    let twice = "a {persistentVolumeClaim: {claimName: one}}\nb {dataVolume: {name: one}}\n";
    let answer = told(Place::Cluster, &guest(twice));
    assert_eq!(
        answer,
        "spec.volumes[1].dataVolume.name: spec.volumes[0] has this claim too: a claim is one disk\n"
    );
    let below = "a {ephemeral: {persistentVolumeClaim: {claimName: one}}}\n\
                 b {ephemeral: {persistentVolumeClaim: {claimName: one}}}\n";
    assert_eq!(told(Place::Cluster, &guest(below)), "good");
}

#[test]
fn cloud_init_reads_one_volume_of_either_kind() {
    let two = "root {hostDisk: {path: /a, type: Disk}}\na {cloudInitNoCloud: {userData: a}}\n\
               b {cloudInitConfigDrive: {userData: b}}\n";
    let answer = told(Place::Host, &guest(two));
    let said = "spec.volumes[2].cloudInitConfigDrive: cloud-init reads one volume, and spec.volumes[1] is one: remove it\n";
    assert_eq!(answer, said);
}

#[test]
fn a_guest_boots_from_the_first_disk_that_may_hold_a_system() {
    for kind in [
        "{containerDisk: {image: a}}",
        "{persistentVolumeClaim: {claimName: a}}",
        "{dataVolume: {name: a}}",
        "{ephemeral: {persistentVolumeClaim: {claimName: a}}}",
    ] {
        let text = guest(&format!("seed {{cloudInitNoCloud: {{userData: a}}}}\nroot {kind}\n"));
        assert_eq!(read(&text).spec.boot_disk().map(|disk| disk.name.as_str()), Some("root"), "{kind}");
    }
    for kind in ["{emptyDisk: {capacity: 1Gi}}", "{secret: {secretName: a}}"] {
        let answer = told(Place::Cluster, &guest(&format!("root {kind}\n")));
        assert!(answer.contains("there is nothing to boot"), "{kind}: {answer}");
    }
}

#[test]
fn a_pod_has_each_volume_at_the_place_where_the_launcher_looks() {
    let instance = read(&guest(ALL));
    let volumes = PodVolumes::default();
    let mounts = volumes.mounts(&instance.spec);
    let places: Vec<(&str, &str, Option<&str>, bool)> = mounts.iter().map(place).collect();
    assert_eq!(
        places,
        [
            ("volume-0", "/run/pinion/images/root", None, true),
            ("volume-1", "/run/pinion/volumes/data", Some("/dev/pinion/data"), false),
            ("volume-2", "/run/pinion/volumes/archive", Some("/dev/pinion/archive"), true),
            ("volume-3", "/run/pinion/volumes/made", Some("/dev/pinion/made"), false),
            ("volume-4", "/run/pinion/volumes/base", Some("/dev/pinion/base"), true),
            ("volume-6", "/run/pinion/volumes/host", None, false),
            ("volume-7", "/run/pinion/volumes/map", None, true),
            ("volume-8", "/run/pinion/volumes/word", None, true),
            ("volume-9", "/run/pinion/volumes/pod", None, true),
            ("volume-10", "/run/pinion/volumes/seed", None, true),
            ("network-data-10", "/run/pinion/network-data/seed", None, true),
            ("scratch", "/run/pinion/scratch", None, false),
        ]
    );
    let sources: Vec<&PodSource<'_>> = mounts.iter().map(|mount| &mount.source).collect();
    assert_eq!(
        *sources[0],
        PodSource::Image {
            reference: "quay.io/containerdisks/debian:13",
            pull_policy: Some("Always"),
            pull_secret: Some("key")
        }
    );
    assert_eq!(*sources[3], PodSource::Claim { name: "made" });
    assert_eq!(*sources[5], PodSource::HostFolder { path: Path::new("/srv/images"), make: true });
    assert_eq!(*sources[6], PodSource::ConfigMap { name: "map", optional: true });
    assert_eq!(*sources[9], PodSource::Secret { name: "user", optional: false });
    assert_eq!(*sources[10], PodSource::Secret { name: "network", optional: false });
    assert_eq!(*sources[11], PodSource::Empty);
}

fn place<'a>(mount: &'a PodMount<'_>) -> (&'a str, &'a str, Option<&'a str>, bool) {
    let text = |path: &'a Path| path.to_str().unwrap_or_default();
    (&mount.name, text(&mount.path), mount.device.as_deref().map(text), mount.read_only)
}

#[test]
fn a_guest_that_needs_nothing_of_its_pod_has_no_mounts_and_a_kernel_is_one() {
    let seed = guest("seed {cloudInitNoCloud: {userData: a}}\n");
    let seed = seed.replace(
        "    devices:",
        "    firmware: {kernelBoot: {container: {image: a, kernelPath: /k}}}\n    devices:",
    );
    let mut instance = read(&seed);
    let volumes = PodVolumes::default();
    let names = |instance: &VirtualMachineInstance| {
        volumes.mounts(&instance.spec).iter().map(|mount| mount.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&instance), ["kernel"]);
    instance.spec.domain.firmware = None;
    assert_eq!(names(&instance), Vec::<String>::new());
}

#[test]
fn an_image_that_is_made_leaves_room_for_the_file_system_around_it() {
    let mut volumes = PodVolumes::default();
    assert_eq!(volumes.image_bytes("a"), None);
    for (capacity, bytes) in
        [(0, None), (1, None), (u64::MAX, Some(u64::MAX / 100 * 94)), (1 << 30, Some(962 << 20))]
    {
        volumes.capacities.insert("a".to_owned(), capacity);
        let near = |made: u64, wanted: u64| made.abs_diff(wanted) <= 1 << 20 && made.is_multiple_of(1 << 20);
        let made = volumes.image_bytes("a");
        assert!(made == bytes || made.zip(bytes).is_some_and(|(m, b)| near(m, b)), "{capacity}: {made:?}");
    }
}
