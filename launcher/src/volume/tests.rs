use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A pod's folders, below one of the test's.
struct Pod {
    folder: TempDir,
    places: PodVolumes,
}

impl Pod {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let places = PodVolumes::below(folder.path());
        for path in [places.scratch(), places.folder("data"), places.image("data"), places.devices.clone()] {
            fs::create_dir_all(path).unwrap();
        }
        Self { folder, places }
    }

    fn put(&self, path: &str, content: &[u8]) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn open(&self, volume: &Value) -> Result<Image, VolumeError> {
        open(volume, Some(&self.places), false)
    }

    fn files(&self, volume: &Value) -> (String, Vec<(String, String)>) {
        let mut disk = self.open(volume).unwrap();
        assert_eq!(disk.access(), Access::ReadOnly);
        let (label, files) = fat::read(&all(&mut disk));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (label, files.into_iter().map(|(name, content)| (name, text(content))).collect())
    }

    fn told(&self, volume: &Value) -> String {
        let error = self.open(volume).unwrap_err();
        crate::chain(&error).replace(self.folder.path().to_str().unwrap(), "POD")
    }
}

/// A guest with one disk.
fn instance(volume: &Value, read_only: bool) -> VirtualMachineInstance {
    let mut volume = volume.clone();
    volume["name"] = "data".into();
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"},
        "spec": {
            "domain": {"devices": {"disks": [{"name": "data", "disk": {"readonly": read_only}}]}},
            "volumes": [volume]
        }
    }))
    .unwrap()
}

fn open(volume: &Value, pod: Option<&PodVolumes>, read_only: bool) -> Result<Image, VolumeError> {
    let instance = instance(volume, read_only);
    let volumes = Volumes { instance: &instance, pod };
    volumes.open(&instance.spec.domain.devices.disks[0], &instance.spec.volumes[0])
}

fn all(disk: &mut Image) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.capacity()).unwrap()];
    vmm_block::read_bytes(&mut **disk, &mut bytes, 0).unwrap();
    bytes
}

fn zero(disk: &mut Image) -> Result<(), vmm_block::DiskError> {
    disk.write_zeroes(0, 512, vmm_block::Space::Keep)?;
    disk.flush()
}

fn claim() -> Value {
    json!({"persistentVolumeClaim": {"claimName": "c"}})
}

fn container_disk() -> Value {
    json!({"containerDisk": {"image": "a"}})
}

fn ephemeral() -> Value {
    json!({"ephemeral": {"persistentVolumeClaim": {"claimName": "c"}}})
}

#[test]
fn a_claim_is_its_raw_image_or_its_device() {
    let pod = Pod::new();
    for (place, volume) in [
        ("volumes/data/disk.img", claim()),
        ("volumes/data/disk.img", json!({"dataVolume": {"name": "c"}})),
        ("devices/data", claim()),
    ] {
        // A guest can write such a beginning.
        let mut content = vec![7; 4096];
        content[..4].copy_from_slice(b"QFI\xfb");
        pod.put(place, &content);
        let mut disk = pod.open(&volume).unwrap();
        assert_eq!(all(&mut disk), content, "{place}");
        zero(&mut disk).unwrap();
        drop(disk);
        assert_eq!(fs::read(pod.folder.path().join(place)).unwrap()[..512], [0; 512], "{place}");
    }
}

#[test]
fn what_is_read_only_of_claim_or_disk_is_not_written() {
    let pod = Pod::new();
    pod.put("volumes/data/disk.img", &[7; 4096]);
    let volume = json!({"persistentVolumeClaim": {"claimName": "c", "readOnly": true}});
    let mut disks = [pod.open(&volume).unwrap(), open(&claim(), Some(&pod.places), true).unwrap()];
    for disk in &mut disks {
        zero(disk).unwrap_err();
    }
    assert!(pod.told(&claim()).contains("disk.img is locked"), "{}", pod.told(&claim()));
}

#[test]
fn a_claim_without_an_image_gets_one_that_fits_where_its_size_is_known() {
    let mut pod = Pod::new();
    let told = pod.told(&claim());
    assert!(told.starts_with("\"POD/volumes/data/disk.img\" is not on the claim"), "{told}");
    pod.places.capacities.insert("data".to_owned(), 100 << 20);
    let read_only = open(&claim(), Some(&pod.places), true).unwrap_err();
    assert!(matches!(read_only, VolumeError::Find { .. }), "{read_only}");
    let disk = pod.open(&claim()).unwrap();
    assert_eq!(disk.capacity(), 94 << 20);
    drop(disk);
    let path = pod.places.folder("data").join("disk.img");
    fs::write(&path, [7; 512]).unwrap();
    assert_eq!(pod.open(&claim()).unwrap().capacity(), 512, "what is there is kept");
    fs::remove_dir_all(pod.places.folder("data")).unwrap();
    assert!(pod.told(&claim()).starts_with("Cannot open \"POD/volumes/data/disk.img\""));
}

#[test]
fn what_a_guest_writes_to_a_container_disk_or_an_ephemeral_claim_goes_with_it() {
    let pod = Pod::new();
    pod.put("volumes/data/disk.img", &[7; 8192]);
    pod.put("images/data/disk/debian.img", &[7; 8192]);
    for volume in [container_disk(), ephemeral()] {
        for _ in 0..2 {
            let (mut one, mut other) = (pod.open(&volume).unwrap(), pod.open(&volume).unwrap());
            assert_eq!(all(&mut one), [7; 8192], "{volume}");
            zero(&mut one).unwrap();
            assert_eq!(all(&mut one)[..1024], [[0; 512], [7; 512]].concat(), "{volume}");
            assert_eq!(all(&mut other), [7; 8192], "{volume}");
        }
        let mut disk = open(&volume, Some(&pod.places), true).unwrap();
        zero(&mut disk).unwrap_err();
    }
    for place in ["volumes/data/disk.img", "images/data/disk/debian.img"] {
        assert_eq!(fs::read(pod.folder.path().join(place)).unwrap(), [7; 8192], "{place}");
    }
    assert_eq!(fs::read_dir(pod.places.scratch()).unwrap().count(), 0, "nothing has a name there");
}

#[test]
fn a_container_disk_is_where_its_path_says_or_the_only_one_and_never_elsewhere() {
    let pod = Pod::new();
    let at = |path: &str| json!({"containerDisk": {"image": "a", "path": path}});
    assert!(pod.told(&container_disk()).starts_with("Cannot open \"POD/images/data/disk\""));
    pod.put("images/data/disk/one.img", &[1; 512]);
    assert_eq!(all(&mut pod.open(&container_disk()).unwrap()), [1; 512]);
    pod.put("images/data/disk/two.img", &[2; 512]);
    let told = pod.told(&container_disk());
    assert!(told.starts_with("\"POD/images/data/disk\" holds 2 files"), "{told}");
    assert_eq!(all(&mut pod.open(&at("/disk/two.img")).unwrap()), [2; 512]);
    pod.put("secret", &[3; 512]);
    for (name, target) in [("out", "../../secret"), ("absolute", "/secret")] {
        symlink(target, pod.places.image("data").join(name)).unwrap();
        let told = pod.told(&at(&format!("/{name}")));
        assert!(told.starts_with("Cannot open"), "{told}");
    }
    symlink("/disk/one.img", pod.places.image("data").join("in")).unwrap();
    assert_eq!(all(&mut pod.open(&at("/in")).unwrap()), [1; 512]);
}

#[test]
fn a_container_disk_may_be_qcow2_unless_it_refers_to_another_file() {
    let pod = Pod::new();
    // Version 3, no backing file, 64 KiB clusters, 1 MiB, an L1 table of one empty entry.
    let mut image = vec![0_u8; 3 << 16];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &16_u32.to_be_bytes());
    put(24, &(1_u64 << 20).to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &(1_u64 << 16).to_be_bytes());
    put(48, &(2_u64 << 16).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    pod.put("images/data/disk/a.img", &image);
    let mut disk = pod.open(&container_disk()).unwrap();
    assert_eq!(disk.capacity(), 1 << 20);
    zero(&mut disk).unwrap();
    drop(disk);
    let name = b"/etc/hostname";
    image[8..16].copy_from_slice(&512_u64.to_be_bytes());
    image[16..20].copy_from_slice(&u32::try_from(name.len()).unwrap().to_be_bytes());
    image[512..512 + name.len()].copy_from_slice(name);
    // Also where the name says what it is.
    for file in ["a.img", "a.qcow2"] {
        fs::remove_dir_all(pod.places.image("data")).unwrap();
        pod.put(&format!("images/data/disk/{file}"), &image);
        let told = pod.told(&container_disk());
        assert!(told.contains("refers to /etc/hostname: backing files are not allowed here"), "{told}");
    }
}

#[test]
fn an_empty_disk_is_of_zeroes_and_takes_no_room() {
    let pod = Pod::new();
    let volume = json!({"emptyDisk": {"capacity": "64Mi"}});
    for places in [Some(&pod.places), None] {
        let mut disk = open(&volume, places, false).unwrap();
        assert_eq!((disk.capacity(), disk.access()), (64 << 20, Access::ReadWrite));
        assert!(all(&mut disk).iter().all(|byte| *byte == 0));
        zero(&mut disk).unwrap();
    }
    assert_eq!(fs::read_dir(pod.places.scratch()).unwrap().count(), 0);
    fs::remove_dir(pod.places.scratch()).unwrap();
    assert!(pod.told(&volume).starts_with("Cannot make a file in \"POD/scratch\""));
}

#[test]
fn a_hosts_disk_is_looked_for_in_the_hosts_folder() {
    let pod = Pod::new();
    let volume =
        |kind: &str| json!({"hostDisk": {"path": "/srv/images/a.img", "type": kind, "capacity": "1Mi"}});
    let told = pod.told(&volume("Disk"));
    assert!(told.starts_with("Cannot open disk image POD/volumes/data/a.img"), "{told}");
    assert_eq!(pod.open(&volume("DiskOrCreate")).unwrap().capacity(), 1 << 20);
    assert!(pod.places.folder("data").join("a.img").exists());
    assert!(!Path::new("/srv/images").exists());
}

/// A folder as the kubelet writes it.
fn by_kubelet(pod: &Pod, folder: &str, files: &[(&str, &str)]) {
    for (name, content) in files {
        pod.put(&format!("{folder}/..2026/{name}"), content.as_bytes());
    }
    let folder = pod.folder.path().join(folder);
    symlink("..2026", folder.join("..data")).unwrap();
    for first in files.iter().map(|(name, _)| name.split('/').next().unwrap()) {
        let _ = symlink(format!("..data/{first}"), folder.join(first));
    }
}

#[test]
fn secrets_config_maps_and_fields_of_the_pod_are_disks_of_their_files() {
    let pod = Pod::new();
    by_kubelet(&pod, "volumes/data", &[("key", "value"), ("tls.crt", "pem"), ("pod/labels", "a=b")]);
    let files = [("key", "value"), ("pod/labels", "a=b"), ("tls.crt", "pem")];
    let files = files.map(|(name, content)| (name.to_owned(), content.to_owned())).to_vec();
    for (volume, label) in [
        (json!({"secret": {"secretName": "s"}}), "cfgdata"),
        (json!({"configMap": {"name": "m", "volumeLabel": "settings"}}), "settings"),
        (json!({"downwardAPI": {"fields": [], "volumeLabel": "pod"}}), "pod"),
    ] {
        assert_eq!(pod.files(&volume), (label.to_owned(), files.clone()), "{volume}");
    }
}

#[test]
fn what_no_disk_of_files_can_hold_is_told() {
    let pod = Pod::new();
    let volume = json!({"secret": {"secretName": "s"}});
    assert_eq!(pod.files(&volume).1, [], "an optional one that is missing");
    by_kubelet(&pod, "volumes/data", &[("key", "1"), ("KEY", "2")]);
    let told = pod.told(&volume);
    assert!(told.contains("are one name on the guest's disk"), "{told}");
    pod.put("volumes/data/large", &vec![0; 5 << 20]);
    fs::remove_file(pod.places.folder("data").join("KEY")).unwrap();
    let told = pod.told(&volume);
    assert!(told.starts_with("\"POD/volumes/data\" holds more than"), "{told}");
}

#[test]
fn cloud_init_gets_what_is_in_secrets() {
    let pod = Pod::new();
    by_kubelet(&pod, "volumes/data", &[("userData", "#cloud-config\n")]);
    by_kubelet(&pod, "network-data/data", &[("networkdata", "{}"), ("networkData", "other")]);
    let data = json!({"secretRef": {"name": "a"}, "networkDataSecretRef": {"name": "b"}});
    let (label, files) = pod.files(&json!({"cloudInitNoCloud": data}));
    assert_eq!(
        (label.as_str(), files[1].1.as_str(), files[2].1.as_str()),
        ("CIDATA", "{}", "#cloud-config\n")
    );
    let (label, files) = pod.files(&json!({"cloudInitConfigDrive": data}));
    let names: Vec<&str> = files.iter().map(|(name, _)| name.rsplit('/').next().unwrap()).collect();
    assert_eq!(
        (label.as_str(), names),
        ("config-2", vec!["meta_data.json", "network_data.json", "user_data"])
    );
    fs::remove_file(pod.places.folder("data").join("userData")).unwrap();
    assert!(pod.told(&json!({"cloudInitNoCloud": data})).starts_with("The secret has no key userdata"));
}

#[test]
fn on_one_host_what_is_of_a_cluster_is_told_so() {
    for volume in [claim(), container_disk(), ephemeral(), json!({"secret": {"secretName": "s"}})] {
        assert!(matches!(open(&volume, None, false), Err(VolumeError::NotInPod)), "{volume}");
    }
    let mut disk = open(&json!({"cloudInitConfigDrive": {"userData": "a"}}), None, false).unwrap();
    assert_eq!(fat::read(&all(&mut disk)).0, "config-2");
}

/// QEMU opens files by their paths.
#[test]
fn another_program_gets_files_that_no_link_leads_out_of() {
    let pod = Pod::new();
    let folder = pod.folder.path();
    let file = |volume: &Value, read_only: bool| {
        let instance = instance(volume, read_only);
        let disk = (&instance.spec.domain.devices.disks[0], &instance.spec.volumes[0]);
        disk_file(&instance, Some(&pod.places), disk, &pod.places.scratch())
    };
    let plain =
        |path: &str, format, read_only| DiskFile { path: folder.join(path), format, base: None, read_only };
    let (raw, qcow2) = (pinion_api::ImageFormat::Raw, pinion_api::ImageFormat::Qcow2);

    // A guest may have written the beginning of a claim's image, and nobody looks.
    pod.put("volumes/data/disk.img", b"QFI\xfb");
    assert_eq!(file(&claim(), false).unwrap(), plain("volumes/data/disk.img", raw, false));
    assert_eq!(file(&claim(), true).unwrap(), plain("volumes/data/disk.img", raw, true));
    let on_top = DiskFile {
        base: Some((folder.join("volumes/data/disk.img"), raw)),
        ..plain("scratch/data.qcow2", qcow2, false)
    };
    assert_eq!(file(&ephemeral(), false).unwrap(), on_top);

    // Nobody has written a container's image: it is what it says.
    fs::create_dir_all(folder.join("images/data/disk")).unwrap();
    let outside = folder.join("outside");
    fs::write(&outside, [7; 512]).unwrap();
    symlink(&outside, folder.join("images/data/disk/a")).unwrap();
    file(&container_disk(), false).unwrap_err();
    fs::remove_file(folder.join("images/data/disk/a")).unwrap();
    pod.put("images/data/disk/a", &[7; 512]);
    let on_top = DiskFile { base: Some((folder.join("images/data/disk/a"), raw)), ..on_top };
    assert_eq!(file(&container_disk(), false).unwrap(), on_top);
    assert_eq!(file(&container_disk(), true).unwrap(), plain("images/data/disk/a", raw, true));

    // What is made for it.
    let empty = file(&json!({"emptyDisk": {"capacity": "1Mi"}}), false).unwrap();
    assert_eq!((fs::metadata(&empty.path).unwrap().len(), empty.read_only), (1 << 20, false));
    let seed = file(&json!({"cloudInitNoCloud": {"userData": "secret"}}), false).unwrap();
    assert!(seed.read_only && fs::read(&seed.path).unwrap().windows(6).any(|part| part == b"secret"));
    assert_eq!(fs::metadata(&seed.path).unwrap().permissions().mode() & 0o777, 0o600);
    let disk = json!({"hostDisk": {"path": "/srv/new.qcow2", "type": "DiskOrCreate", "capacity": "1Mi"}});
    assert_eq!(file(&disk, false).unwrap(), plain("volumes/data/new.qcow2", qcow2, false));
}
