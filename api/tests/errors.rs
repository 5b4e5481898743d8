//! What a bad spec is answered with, word for word.

use pinion_api::parse;

/// A good instance.
const GOOD: &str = include_str!("data/small.yaml");

fn problems(text: &str) -> String {
    match parse(text) {
        Ok(_) => "good".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

/// The answer to the good instance with one text replaced by another, without positions.
fn answer(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    let text = problems(&GOOD.replace(from, to));
    text.lines()
        .map(|line| line.rsplit_once(" (line ").map_or(line, |(message, _)| message))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_misspelt_field_is_named_with_what_was_meant() {
    let machine = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: testvm}
spec:
  runStrategy: Once
  template:
    spec:
      domain:
        cpu:
          coers: 2
        memory: {guest: 256Mi}
        firmware: {kernelBoot: {container: {image: 'file:///boot', kernelPath: vmlinuz}}}
        devices: {}
";
    assert_eq!(
        problems(machine),
        "spec.template.spec.domain.cpu.coers: unknown field, did you mean \"cores\"? (line 10, column 11)"
    );
    assert_eq!(
        answer("cores: 2", "Cores: 2"),
        "spec.domain.cpu.Cores: unknown field, did you mean \"cores\"?"
    );
    assert_eq!(answer("cores: 2", "zebra: 2"), "spec.domain.cpu.zebra: unknown field");
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
    let text = GOOD
        .replace("cores: 2", "coers: two, threads: two")
        .replace("guest: 256Mi", "guest: lots")
        .replace("name: net, bridge", "name: net, masquerade");
    assert_eq!(
        problems(&text),
        "spec.domain.cpu.coers: unknown field, did you mean \"cores\"? (line 6, column 11)\n\
         spec.domain.cpu.threads: must be an integer, but is the text \"two\" (line 6, column 32)\n\
         spec.domain.memory.guest: \"lots\": not a quantity: write a number with an optional suffix, such as 512Mi, \
         1.5Gi, 64M or 100m (line 7, column 21)\n\
         spec.domain.devices.interfaces[0].masquerade: for clusters only: there is no pod network on one host; \
         use a multus network whose networkName is a tap or bridge of this host, with a bridge interface \
         (line 11, column 32)"
    );
}

#[test]
fn types_are_checked_by_path() {
    let cases = [
        ("cores: 2", "cores: -1", "spec.domain.cpu.cores: -1 is out of bounds: between 0 and 4294967295"),
        (
            "cores: 2",
            "cores: 010",
            "spec.domain.cpu.cores: 010 is ambiguous: write the number without leading zeros",
        ),
        ("cores: 2", "cores: 1.5", "spec.domain.cpu.cores: must be an integer, but is the number 1.5"),
        ("cores: 2", "cores: [2]", "spec.domain.cpu.cores: must be an integer, but is a list"),
        ("cpu: {cores: 2}", "cpu: two", "spec.domain.cpu: must be an object, but is the text \"two\""),
        ("{name: guest}", "{name: 7}", "metadata.name: must be text, but is the number 7: put it in quotes"),
        (
            "{name: guest}",
            "{name: no}",
            "metadata.name: must be text, but is the boolean false: put it in quotes",
        ),
        (
            "disks: [{name: root}]",
            "disks: {name: root}",
            "spec.domain.devices.disks: must be a list, but is an object",
        ),
        (
            "cores: 2",
            "cores: 2, dedicatedCpuPlacement: maybe",
            "spec.domain.cpu.dedicatedCpuPlacement: must be true or false, but is the text \"maybe\"",
        ),
        (
            "type: Disk",
            "type: disk",
            "spec.volumes[0].hostDisk.type: unknown value \"disk\", did you mean \"Disk\"?",
        ),
        (
            "type: Disk",
            "type: block",
            "spec.volumes[0].hostDisk.type: unknown value \"block\", use one of Disk, DiskOrCreate",
        ),
        ("cores: 2", "cores: 2, cores: 4", "spec.domain.cpu.cores: given twice, first in line 6: remove one"),
        ("type: Disk", "shared: false", "spec.volumes[0].hostDisk.type: required: whether it may be made"),
    ];
    for (from, to, expected) in cases {
        assert_eq!(answer(from, to), expected);
    }
    assert_eq!(answer("cores: 2", "cores: 2, dedicatedCpuPlacement: yes"), "good");
}

#[test]
fn cpu_rules() {
    let cpu = |extra: &str| answer("cores: 2", &format!("cores: 2, {extra}"));
    assert_eq!(
        cpu("isolateEmulatorThread: true"),
        "spec.domain.cpu.isolateEmulatorThread: needs cpu.dedicatedCpuPlacement: true"
    );
    assert_eq!(
        cpu("numa: {guestMappingPassthrough: {}}"),
        "spec.domain.cpu.numa.guestMappingPassthrough: needs cpu.dedicatedCpuPlacement: true"
    );
    assert_eq!(
        cpu("realtime: {mask: 0-2}"),
        "spec.domain.cpu.dedicatedCpuPlacement: required by cpu.realtime: set it to true\n\
         spec.domain.cpu.numa.guestMappingPassthrough: required by cpu.realtime: set it to {}\n\
         spec.domain.cpu.realtime.mask: there is no vCPU 2: the guest has 2, from 0 to 1"
    );
    assert_eq!(
        cpu("sockets: 4000000000, threads: 4000000000"),
        "spec.domain.cpu: 4000000000 sockets × 2 cores × 4000000000 threads are more than the 512 vCPUs a guest can have"
    );
    assert_eq!(
        cpu("sockets: 2, maxSockets: 4"),
        "spec.domain.cpu.maxSockets: not implemented yet: CPUs are not hot-plugged; remove it, or make it 2 as sockets"
    );
    // libvirt has named models.
    assert_eq!(cpu("model: Haswell"), "good");
    assert_eq!(cpu("threads: 4, dedicatedCpuPlacement: true, numa: {guestMappingPassthrough: {}}"), "good");
    let resources = |extra: &str| {
        answer(
            "    cpu: {cores: 2}",
            &format!("    resources: {extra}\n    cpu: {{cores: 2, dedicatedCpuPlacement: true}}"),
        )
    };
    assert_eq!(resources("{requests: {cpu: 2}, limits: {cpu: '2'}}"), "good");
    assert_eq!(
        resources("{requests: {cpu: 1500m}}"),
        "spec.domain.resources.requests.cpu: 1500m is not a whole number, and dedicated CPUs are whole"
    );
    assert_eq!(
        resources("{requests: {cpu: 3}}"),
        "spec.domain.resources.requests.cpu: 3 does not agree with the 2 vCPUs of domain.cpu: remove it"
    );
    assert_eq!(
        resources("{requests: {cpu: 1}, limits: {cpu: 2}}"),
        "spec.domain.cpu.dedicatedCpuPlacement: the CPU request of 1 and limit of 2 must be equal"
    );
    assert_eq!(
        resources("{requests: {hugepages-2Mi: 1Gi}}"),
        "spec.domain.resources.requests.hugepages-2Mi: refused: only cpu and memory are counted; use \
         memory.hugepages for huge pages"
    );
    assert_eq!(
        answer("cpu: {cores: 2}", "cpu: {dedicatedCpuPlacement: true}"),
        "spec.domain.cpu.dedicatedCpuPlacement: how many CPUs? give cpu.cores (sockets, threads), or a CPU request or limit"
    );
}

#[test]
fn memory_rules() {
    let memory = |text: &str| answer("memory: {guest: 256Mi}", text);
    assert_eq!(memory("machine: {}"), "spec.domain.memory.guest: required: how much memory has the guest?");
    assert_eq!(memory("memory: {hugepages: {pageSize: 1Gi}}"), "good");
    assert_eq!(
        memory("memory: {guest: 256Mi, hugepages: {pageSize: 3Mi}}"),
        "spec.domain.memory.hugepages.pageSize: \"3Mi\" is no size of huge pages on x86-64: use 2Mi or 1Gi"
    );
    assert_eq!(
        memory("memory: {guest: 255Mi, hugepages: {pageSize: 2Mi}}"),
        "spec.domain.memory.guest: 255Mi is not a whole number of 2Mi pages: round it up"
    );
    assert_eq!(memory("memory: {guest: -1Gi}"), "spec.domain.memory.guest: -1Gi is negative");
    assert_eq!(
        memory("memory: {guest: 640k}"),
        "spec.domain.memory.guest: 640k is less than 1Mi: too little to boot in"
    );
    assert_eq!(
        memory("memory: {guest: 1Pi}"),
        "spec.domain.memory.guest: 1Pi is more than the 32Ti a guest can have"
    );
    assert_eq!(
        memory("memory: {guest: 1Gi}\n    resources: {requests: {memory: 512Mi}}"),
        "spec.domain.resources.requests.memory: 512Mi is less than the guest's 1Gi: memory is never overcommitted; remove it"
    );
    assert_eq!(memory("resources: {requests: {memory: 64M}}"), "good");
}

#[test]
fn devices_refer_to_each_other() {
    assert_eq!(
        answer("disks: [{name: root}]", "disks: [{name: rooot}]"),
        "spec.domain.devices.disks[0].name: \"rooot\" has no volume: add one of that name to volumes\n\
         spec.volumes[0].name: \"root\" has no disk: add one of that name to domain.devices.disks"
    );
    assert_eq!(
        answer("disks: [{name: root}]", "disks: [{name: root}, {name: root}]"),
        "spec.domain.devices.disks[1].name: \"root\" is the name of spec.domain.devices.disks[0] too: names must differ"
    );
    assert_eq!(
        answer("interfaces: [{name: net, bridge: {}}]", "interfaces: []"),
        "spec.networks[0].name: \"net\" has no interface: add one of that name to domain.devices.interfaces"
    );
    assert_eq!(
        answer("bridge: {}", "macAddress: '03:00:00:00:00:01'"),
        "spec.domain.devices.interfaces[0]: required: how is it connected? use bridge: {}\n\
         spec.domain.devices.interfaces[0].macAddress: a multicast address: the first pair must be even"
    );
    assert_eq!(
        answer("networkName: tap0", "networkName: default/some-network"),
        "spec.networks[0].multus.networkName: \"default/some-network\" is no name of a tap or bridge of this host: at \
         most 15 characters, without / and :"
    );
    assert_eq!(
        answer("path: /root.img, type: Disk", "path: ../root.img, type: DiskOrCreate"),
        "spec.volumes[0].hostDisk.capacity: required by the type DiskOrCreate: how large is it to be made?\n\
         spec.volumes[0].hostDisk.path: must be an absolute path of this host, without .."
    );
    assert_eq!(
        answer("hostDisk: {path: /root.img, type: Disk}", "cloudInitNoCloud: {userDataBase64: '%'}"),
        "spec.volumes[0].cloudInitNoCloud.userDataBase64: not base64"
    );
}

#[test]
fn an_interface_by_sriov_is_a_device_of_the_host() {
    let text =
        GOOD.replace("bridge: {}", "sriov: {}").replace("networkName: tap0", "networkName: example.com/nic");
    assert_eq!(problems(&text), "good");
    assert_eq!(
        answer("bridge: {}", "sriov: {}"),
        "spec.networks[0].multus.networkName: \"tap0\" is no resource name such as example.com/nic"
    );
    let text = text.replace("sriov: {}", "sriov: {}, macAddress: '02:00:00:00:00:01'");
    assert!(
        problems(&text).starts_with("spec.domain.devices.interfaces[0].macAddress: it is the device's own")
    );
}

#[test]
fn the_pci_bus_has_places_for_31_devices() {
    let disks = |count: usize| {
        let list = |item: fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
        let text = GOOD
            .replace("disks: [{name: root}]", &format!("disks: [{}]", list(|n| format!("{{name: d{n}}}"))))
            .replace(
                "volumes: [{name: root, hostDisk: {path: /root.img, type: Disk}}]",
                &format!(
                    "volumes: [{}]",
                    list(|n| format!("{{name: d{n}, hostDisk: {{path: /d{n}, type: Disk}}}}"))
                ),
            );
        problems(&text)
    };
    assert_eq!(disks(30), "good");
    assert!(
        disks(31).starts_with("spec.domain.devices: 31 disks and 1 interfaces need 32 places"),
        "{}",
        disks(31)
    );
}

#[test]
fn io_thread_rules() {
    let policy = |text: &str| answer("    cpu:", &format!("    {text}\n    cpu:"));
    assert_eq!(
        policy("ioThreadsPolicy: supplementalPool"),
        "spec.domain.ioThreads.supplementalPoolThreadCount: required by the policy supplementalPool: at least 1"
    );
    assert_eq!(
        policy("ioThreads: {supplementalPoolThreadCount: 1}"),
        "spec.domain.ioThreads.supplementalPoolThreadCount: has no effect without ioThreadsPolicy: supplementalPool"
    );
    assert_eq!(
        policy("ioThreadsPolicy: Shared"),
        "spec.domain.ioThreadsPolicy: unknown value \"Shared\", did you mean \"shared\"?"
    );
}

#[test]
fn a_guest_needs_a_kernel_of_this_host() {
    let boot = "{container: {image: 'file:///boot', kernelPath: vmlinuz}}";
    let path = "spec.domain.firmware.kernelBoot.container";
    assert_eq!(
        answer(boot, "{container: {image: quay.io/a/b, kernelPath: vmlinuz}}"),
        format!(
            "{path}.image: for clusters only: on one host images are not pulled from a registry; unpack it, and use file:///DIR"
        )
    );
    assert_eq!(
        answer(boot, "{container: {image: 'file:///boot', kernelPath: ../../etc/shadow}}"),
        format!("{path}.kernelPath: must be a path inside the image, without ..")
    );
    assert_eq!(
        answer(boot, "{container: {image: 'file:///boot'}}"),
        format!("{path}.kernelPath: required: the kernel's path inside the image")
    );
}

#[test]
fn a_backend_that_is_asked_for_is_one_and_can_run_the_guest() {
    let asked = |word: &str, more: &str| {
        let text = format!(
            "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\n\
             metadata: {{name: a, annotations: {{pinion.dev/backend: {word}}}}}\nspec:\n  domain:\n    \
             memory: {{guest: 1Gi}}\n    devices: {{}}\n    \
             firmware: {{{more}kernelBoot: {{container: {{image: 'file:/b', kernelPath: k}}}}}}\n"
        );
        pinion_api::parse(text).map_or_else(|problems| problems.to_string(), |_| String::new())
    };
    for word in ["auto", "libvirt"] {
        assert_eq!(asked(word, "serial: '7', "), "");
    }
    assert_eq!(asked("native", ""), "");
    assert_eq!(
        asked("native", "serial: '7', "),
        "spec.domain.firmware.serial: only libvirt has it (natively, the guest has no SMBIOS tables), and \
         pinion.dev/backend asks for native (line 8, column 16)"
    );
    assert_eq!(
        asked("qemu", ""),
        "metadata.annotations[\"pinion.dev/backend\"]: \"qemu\" is no backend: auto, native or libvirt (line 3, column 35)"
    );
}

#[test]
fn what_is_inside_a_missing_object_is_not_missed_too() {
    assert_eq!(
        problems("apiVersion: kubevirt.io/v1\nkind: VirtualMachine\n"),
        "metadata: required: name, labels and annotations (line 1, column 1)\n\
         spec: required: what it is (line 1, column 1)"
    );
}

#[test]
fn machine_rules() {
    let machine = |spec: &str| {
        let text =
            "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: a}\nspec:\n  ".to_owned();
        let domain = "{memory: {guest: 1Gi}, devices: {}, firmware: {kernelBoot: {container: {image: 'file:/b', kernelPath: k}}}}";
        problems(&format!(
            "{text}{spec}\n  template: {{metadata: {{name: b}}, spec: {{domain: {domain}}}}}\n"
        ))
    };
    assert_eq!(
        machine("running: false\n  runStrategy: Once"),
        "spec.running: running and runStrategy exclude each other: remove running, which is deprecated (line 5, column 3)\n\
         spec.template.metadata.name: the instance has the machine's name: remove it (line 7, column 25)"
    );
    assert!(machine("running: true").starts_with("spec.running: must be false: on one host"));
    assert!(
        machine("runStrategy: Sometimes")
            .starts_with("spec.runStrategy: unknown value \"Sometimes\", use one of")
    );
}

#[test]
fn platform_rules() {
    let domain = |extra: &str| answer("cpu: {cores: 2}", &format!("cpu: {{cores: 2}}\n    {extra}"));
    assert_eq!(
        domain("features: {hyperv: {relaxed: {}}, hypervPassthrough: {enabled: true}}"),
        "spec.domain.features.hypervPassthrough: passes all of Hyper-V's features on, so that hyperv says nothing: \
         remove one of them"
    );
    assert_eq!(domain("features: {hyperv: {relaxed: {}}, hypervPassthrough: {enabled: false}}"), "good");
    assert_eq!(
        domain("clock: {timezone: Europe/Berlin, utc: {offsetSeconds: 60}}"),
        "spec.domain.clock: the clock has a time zone or an offset from UTC: remove timezone or utc"
    );
}
