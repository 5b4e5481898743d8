use std::fs;

use nix::sys::stat::Mode;
use pinion_machine::{NodeId, PageSize};
use pinion_planner::{Cell, Emulator, IoThread, Vcpu};
use vmm_block::Access;

use super::*;

fn cpus(text: &str) -> CpuSet {
    text.parse().unwrap()
}

fn placement() -> Placement {
    let vcpu = |id: u32, cpu: u32| Vcpu {
        id,
        socket: 0,
        core: id,
        thread: 0,
        cell: 0,
        cpu: Some(pinion_machine::CpuId(cpu)),
        cpus: CpuSet::new(),
        realtime: id == 1,
    };
    Placement {
        name: "default/a".into(),
        generation: 0,
        vcpus: vec![vcpu(0, 4), vcpu(1, 6)],
        emulator: Emulator { cpus: cpus("0-1") },
        io_threads: vec![
            IoThread { id: 1, cpus: cpus("2"), disks: vec!["other".into()] },
            IoThread { id: 2, cpus: cpus("3"), disks: vec!["data".into()] },
        ],
        cells: vec![Cell {
            id: 0,
            host_node: NodeId(1),
            memory_bytes: 64 << 20,
            page_size_bytes: PageSize::MIB2,
            vcpus: vec![0, 1],
            distances: vec![10],
        }],
        devices: vec![],
    }
}

/// A guest with one disk, whose volume is `volume`, and its kernel in `folder`.
fn open_with(
    folder: &Path,
    arguments: Option<&str>,
    volume: &serde_json::Value,
) -> Result<Guest, GuestError> {
    let mut volume = volume.clone();
    volume["name"] = "data".into();
    let instance = serde_json::json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "a"},
        "spec": {
            "domain": {
                "cpu": {"cores": 2, "dedicatedCpuPlacement": true},
                "devices": {"rng": {}, "disks": [{"name": "data", "disk": {"bus": "virtio"}, "serial": "S1"}]},
                "firmware": {"kernelBoot": {
                    "kernelArgs": arguments,
                    "container": {"image": format!("file:{}", folder.display()), "kernelPath": "/vmlinuz"}
                }}
            },
            "volumes": [volume]
        }
    });
    let instance = serde_json::from_value(instance).unwrap();
    Guest::open(&instance, &placement(), None, unwired())
}

fn unwired() -> Wiring {
    let console = vmm_machine::ConsoleConfig { output: None, input: None };
    Wiring { console, taps: std::collections::BTreeMap::new(), groups: None }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vmlinuz"), b"no matter").unwrap();
    folder
}

fn command_line(machine: &MachineConfig) -> &str {
    let Kernel::Files(files) = &machine.kernel else { panic!("{:?}", machine.kernel) };
    &files.command_line
}

fn host_disk(path: &Path) -> serde_json::Value {
    serde_json::json!({"hostDisk": {"path": path, "type": "Disk"}})
}

fn text(error: &GuestError) -> String {
    crate::chain(error)
}

#[test]
fn everything_goes_where_the_placement_says() {
    let folder = folder();
    let image = folder.path().join("data.img");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let machine = open_with(folder.path(), Some("quiet root=/dev/vda"), &host_disk(&image)).unwrap().machine;
    assert_eq!((machine.sockets, machine.cores, machine.threads), (1, 2, 1));
    let vcpus: Vec<_> = machine.vcpus.iter().map(|v| (v.core, v.cpus.clone(), v.fifo)).collect();
    assert_eq!(vcpus, [(0, vec![4], None), (1, vec![6], Some(1))]);
    let cell = &machine.cells[0];
    assert_eq!((cell.memory_bytes, cell.page_size, cell.host_node), (64 << 20, 2 << 20, Some(1)));
    assert_eq!(machine.emulator_cpus, [0, 1]);
    assert_eq!((machine.disks[0].io_thread, machine.disks[0].serial.as_str()), (Some(1), "S1"));
    assert_eq!(machine.io_threads[1].cpus, [3]);
    assert_eq!(command_line(&machine), "console=ttyS0 quiet root=/dev/vda");
    assert_eq!(machine.rng, Rng::Present);
    assert_eq!(machine.hints, Hints::Dedicated);
}

#[test]
fn without_arguments_there_is_a_console_still() {
    let folder = folder();
    let image = folder.path().join("data.img");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let machine = open_with(folder.path(), None, &host_disk(&image)).unwrap().machine;
    assert_eq!(command_line(&machine), "console=ttyS0");
}

#[test]
fn an_image_that_is_missing_empty_or_a_folder_is_named_with_its_volume() {
    let folder = folder();
    let empty = folder.path().join("empty.img");
    File::create(&empty).unwrap();
    for path in [&folder.path().join("missing.img"), &empty, folder.path()] {
        let error = open_with(folder.path(), None, &host_disk(path)).unwrap_err();
        let text = text(&error);
        assert!(text.starts_with("volume \"data\"") && text.contains(path.to_str().unwrap()), "{text}");
    }
}

#[test]
fn an_image_that_a_guest_writes_is_refused_to_another() {
    let folder = folder();
    let image = folder.path().join("data.img");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let first = open_with(folder.path(), None, &host_disk(&image)).unwrap();
    let error = open_with(folder.path(), None, &host_disk(&image)).unwrap_err();
    assert!(text(&error).contains("data.img"), "{}", text(&error));
    drop(first);
    open_with(folder.path(), None, &host_disk(&image)).unwrap();
}

#[test]
fn a_raw_image_with_a_qcow2_header_stays_raw() {
    let folder = folder();
    let image = folder.path().join("data.img");
    let mut bytes = vec![0; 1 << 20];
    bytes[..4].copy_from_slice(b"QFI\xfb");
    fs::write(&image, &bytes).unwrap();
    let opened = open_with(folder.path(), None, &host_disk(&image)).unwrap();
    assert_eq!(opened.machine.disks[0].image.lock().unwrap().capacity(), 1 << 20);
}

#[test]
fn an_image_is_made_sparse_once_and_kept_as_it_is_then() {
    let folder = folder();
    let image = folder.path().join("made.img");
    let volume = serde_json::json!({"hostDisk": {"path": image, "type": "DiskOrCreate", "capacity": "8Mi"}});
    open_with(folder.path(), None, &volume).unwrap();
    assert_eq!(fs::metadata(&image).unwrap().len(), 8 << 20);
    assert!(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&image).unwrap()) < 100);
    fs::write(&image, vec![7; 1 << 20]).unwrap();
    open_with(folder.path(), None, &volume).unwrap();
    assert_eq!(fs::read(&image).unwrap(), vec![7; 1 << 20]);
}

#[test]
fn cloud_init_data_becomes_a_read_only_disk() {
    let folder = folder();
    let volume = serde_json::json!({"cloudInitNoCloud": {"userData": "#cloud-config\n"}});
    let machine = open_with(folder.path(), None, &volume).unwrap().machine;
    assert_eq!(machine.disks[0].image.lock().unwrap().access(), Access::ReadOnly);
}

#[test]
fn a_kernel_that_is_a_pipe_does_not_block() {
    let folder = folder();
    let kernel = folder.path().join("vmlinuz");
    fs::remove_file(&kernel).unwrap();
    nix::unistd::mkfifo(&kernel, Mode::S_IRWXU).unwrap();
    let image = folder.path().join("data.img");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    // Whoever loads it finds no kernel inside.
    assert!(open_with(folder.path(), None, &host_disk(&image)).is_ok());
}

#[test]
fn a_network_that_is_not_there_is_named_with_what_to_do() {
    let interface = serde_json::json!({"name": "net0", "bridge": {}});
    let instance = serde_json::json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"},
        "spec": {
            "domain": {"devices": {"interfaces": [interface]}},
            "networks": [{"name": "net0", "multus": {"networkName": "pinion-none"}}]
        }
    });
    let instance: VirtualMachineInstance = serde_json::from_value(instance).unwrap();
    let error = open_net(&instance, &instance.spec.domain.devices.interfaces[0], None).unwrap_err();
    assert!(text(&error).contains("\"pinion-none\""), "{}", text(&error));
}

#[test]
fn in_a_pod_the_kernel_is_where_the_pod_has_its_image() {
    let folder = tempfile::tempdir().unwrap();
    let pod = PodVolumes::below(folder.path());
    fs::create_dir_all(pod.kernel().join("boot")).unwrap();
    fs::write(pod.kernel().join("boot/vmlinuz"), b"no matter").unwrap();
    let open = |kernel: &str| {
        let instance = serde_json::json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"},
            "spec": {"domain": {"devices": {}, "firmware": {"kernelBoot": {
                "container": {"image": "example.com/kernel", "kernelPath": kernel}
            }}}}
        });
        let instance = serde_json::from_value(instance).unwrap();
        Guest::open(&instance, &placement(), Some(&pod), unwired())
    };
    assert!(matches!(open("/boot/vmlinuz").unwrap().machine.kernel, Kernel::Files(_)));
    let error = text(&open("/boot/none").unwrap_err());
    assert!(error.contains("kernelPath: Cannot open") && error.contains("kernel/boot/none"), "{error}");
}
