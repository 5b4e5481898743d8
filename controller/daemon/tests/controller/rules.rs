//! A document for each rule: the field that it is told of, and what is set in a document that is good.

/// The field, and values by their JSON pointers.
type Case = (&'static str, &'static str);

/// Which document is changed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Base {
    Instance,
    Machine,
    ReplicaSet,
}

/// All of them.
pub(crate) const ALL: [(&[Case], Base); 7] = [
    (OF_CPUS, Base::Instance),
    (OF_MEMORY, Base::Instance),
    (OF_THE_DOMAIN, Base::Instance),
    (OF_DISKS, Base::Instance),
    (OF_NETWORKS, Base::Instance),
    (OF_MACHINES, Base::Machine),
    (OF_REPLICA_SETS, Base::ReplicaSet),
];

const OF_CPUS: &[Case] = &[
    ("spec.domain.cpu", r#"{"/spec/domain/cpu/sockets": 300}"#),
    ("spec.domain.cpu.maxSockets", r#"{"/spec/domain/cpu/sockets": 2, "/spec/domain/cpu/maxSockets": 1}"#),
    ("spec.domain.cpu.maxSockets", r#"{"/spec/domain/cpu/maxSockets": 4}"#),
    ("spec.domain.resources.requests.gpu", r#"{"/spec/domain/resources": {"requests": {"gpu": 1}}}"#),
    ("spec.domain.resources.requests.cpu", r#"{"/spec/domain/resources": {"requests": {"cpu": "-1"}}}"#),
    ("spec.domain.resources.limits.memory", r#"{"/spec/domain/resources": {"limits": {"memory": "-1"}}}"#),
    (
        "spec.domain.resources.requests.cpu",
        r#"{"/spec/domain/resources": {"requests": {"cpu": 3}, "limits": {"cpu": 2}}}"#,
    ),
    ("spec.domain.resources.requests.cpu", r#"{"/spec/domain/resources": {"requests": {"cpu": 3}}}"#),
    ("spec.domain.resources.limits.cpu", r#"{"/spec/domain/resources": {"limits": {"cpu": 1}}}"#),
    (
        "spec.domain.resources.limits.cpu",
        r#"{"/spec/domain/cpu": {"dedicatedCpuPlacement": true}, "/spec/domain/resources": {"limits": {"cpu": "1500m"}}}"#,
    ),
    ("spec.domain.cpu.dedicatedCpuPlacement", r#"{"/spec/domain/cpu": {"dedicatedCpuPlacement": true}}"#),
    (
        "spec.domain.cpu.dedicatedCpuPlacement",
        r#"{"/spec/domain/cpu": {"dedicatedCpuPlacement": true}, "/spec/domain/resources": {"requests": {"cpu": 1}, "limits": {"cpu": 2}}}"#,
    ),
    (
        "spec.domain.resources.limits.cpu",
        r#"{"/spec/domain/cpu/dedicatedCpuPlacement": true, "/spec/domain/resources": {"limits": {"cpu": 3}}}"#,
    ),
    ("spec.domain.cpu.isolateEmulatorThread", r#"{"/spec/domain/cpu/isolateEmulatorThread": true}"#),
    (
        "spec.domain.cpu.numa.guestMappingPassthrough",
        r#"{"/spec/domain/cpu/numa": {"guestMappingPassthrough": {}}}"#,
    ),
    ("spec.domain.cpu.numa.guestMappingPassthrough", r#"{"/spec/domain/cpu/realtime": {}}"#),
    ("spec.domain.cpu.dedicatedCpuPlacement", r#"{"/spec/domain/cpu/realtime": {}}"#),
    ("spec.domain.cpu.realtime.mask", r#"{"/spec/domain/cpu/realtime": {"mask": "7"}}"#),
];

const OF_MEMORY: &[Case] = &[
    ("spec.domain.memory.guest", r#"{"/spec/domain/memory": {}}"#),
    ("spec.domain.memory.guest", r#"{"/spec/domain/memory/guest": "-1"}"#),
    ("spec.domain.memory.guest", r#"{"/spec/domain/memory/guest": "1Ki"}"#),
    ("spec.domain.memory.guest", r#"{"/spec/domain/memory/guest": "64Ti"}"#),
    (
        "spec.domain.memory.guest",
        r#"{"/spec/domain/memory": {"guest": "255Mi", "hugepages": {"pageSize": "2Mi"}}}"#,
    ),
    ("spec.domain.memory.guest", r#"{"/spec/domain/resources": {"limits": {"memory": "64Mi"}}}"#),
    ("spec.domain.memory.hugepages.pageSize", r#"{"/spec/domain/memory/hugepages": {}}"#),
    ("spec.domain.memory.hugepages.pageSize", r#"{"/spec/domain/memory/hugepages": {"pageSize": "3Mi"}}"#),
    (
        "spec.domain.resources.requests.memory",
        r#"{"/spec/domain/resources": {"requests": {"memory": "512Mi"}}}"#,
    ),
    (
        "spec.domain.resources.requests.memory",
        r#"{"/spec/domain/resources": {"requests": {"memory": "128Mi"}}}"#,
    ),
    (
        "spec.domain.resources.requests.memory",
        r#"{"/spec/domain/cpu/dedicatedCpuPlacement": true, "/spec/domain/resources": {"requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}}}"#,
    ),
];

const OF_THE_DOMAIN: &[Case] = &[
    (
        "spec.domain.ioThreads.supplementalPoolThreadCount",
        r#"{"/spec/domain/ioThreadsPolicy": "supplementalPool"}"#,
    ),
    (
        "spec.domain.ioThreads.supplementalPoolThreadCount",
        r#"{"/spec/domain/ioThreadsPolicy": "supplementalPool", "/spec/domain/ioThreads": {"supplementalPoolThreadCount": 9}}"#,
    ),
    (
        "spec.domain.ioThreads.supplementalPoolThreadCount",
        r#"{"/spec/domain/ioThreads": {"supplementalPoolThreadCount": 1}}"#,
    ),
    (
        "spec.domain.firmware.kernelBoot",
        r#"{"/spec/domain/firmware": {}, "/spec/domain/devices/disks": [], "/spec/volumes": []}"#,
    ),
    (
        "spec.domain.firmware.kernelBoot.kernelArgs",
        r#"{"/spec/domain/firmware/kernelBoot/kernelArgs": "a\u0001"}"#,
    ),
    (
        "spec.domain.firmware.kernelBoot.container",
        r#"{"/spec/domain/firmware/kernelBoot": {"kernelArgs": "quiet"}}"#,
    ),
    (
        "spec.domain.firmware.kernelBoot.container.image",
        r#"{"/spec/domain/firmware/kernelBoot/container/image": "file:///boot"}"#,
    ),
    (
        "spec.domain.firmware.kernelBoot.container.kernelPath",
        r#"{"/spec/domain/firmware/kernelBoot/container": {"image": "a"}}"#,
    ),
    (
        "spec.domain.firmware.kernelBoot.container.initrdPath",
        r#"{"/spec/domain/firmware/kernelBoot/container/initrdPath": "../a"}"#,
    ),
    ("spec.domain.machine.type", r#"{"/spec/domain/machine": {"type": "pc-i440fx-8"}}"#),
    ("spec.domain.clock.timer.hpet", r#"{"/spec/domain/clock": {"timer": {"hpet": {}}}}"#),
    ("spec.domain.clock.timer.pit", r#"{"/spec/domain/clock": {"timer": {"pit": {}}}}"#),
    (
        "spec.domain.devices.hostDevices[1].name",
        r#"{"/spec/domain/devices/hostDevices": [{"name": "a", "deviceName": "a.b/c"}, {"name": "a", "deviceName": "a.b/c"}]}"#,
    ),
    (
        "spec.domain.devices.gpus[0].deviceName",
        r#"{"/spec/domain/devices/gpus": [{"name": "a", "deviceName": ""}]}"#,
    ),
    ("spec.terminationGracePeriodSeconds", r#"{"/spec/terminationGracePeriodSeconds": 86401}"#),
    ("spec.hostname", r#"{"/spec/hostname": "Not_A_Label"}"#),
    (
        "metadata.annotations[\"hooks.kubevirt.io/hookSidecars\"]",
        r#"{"/metadata/annotations": {"hooks.kubevirt.io/hookSidecars": "[]"}}"#,
    ),
    (
        "metadata.annotations[\"pinion.dev/backend\"]",
        r#"{"/metadata/annotations": {"pinion.dev/backend": "qemu"}}"#,
    ),
    (
        "spec.domain.chassis",
        r#"{"/metadata/annotations": {"pinion.dev/backend": "native"}, "/spec/domain/chassis": {"serial": "1"}}"#,
    ),
];

const OF_DISKS: &[Case] = &[
    (
        "spec.domain.devices.disks[1].name",
        r#"{"/spec/domain/devices/disks": [{"name": "root"}, {"name": "root"}]}"#,
    ),
    ("spec.domain.devices.disks[0].name", r#"{"/spec/domain/devices/disks": [{"name": "other"}]}"#),
    ("spec.domain.devices.disks[0].name", r#"{"/spec/domain/devices/disks": [{"name": "Root"}]}"#),
    ("spec.volumes[0].name", r#"{"/spec/domain/devices/disks": []}"#),
    (
        "spec.domain.devices.disks[0]",
        r#"{"/spec/domain/devices/disks/0": {"name": "root", "disk": {}, "lun": {}}}"#,
    ),
    ("spec.domain.devices.disks[0].serial", r#"{"/spec/domain/devices/disks/0/serial": "a b"}"#),
    (
        "spec.domain.devices.disks[0].serial",
        r#"{"/spec/domain/devices/disks/0/serial": "123456789012345678901"}"#,
    ),
    ("spec.domain.devices.disks[0].bootOrder", r#"{"/spec/domain/devices/disks/0/bootOrder": 0}"#),
    (
        "spec.domain.devices.disks[1].bootOrder",
        r#"{"/spec/domain/devices/disks": [{"name": "root", "bootOrder": 1}, {"name": "b", "bootOrder": 1}]}"#,
    ),
    ("spec.volumes[0]", r#"{"/spec/volumes/0": {"name": "root"}}"#),
    ("spec.volumes[0]", r#"{"/spec/volumes/0/emptyDisk": {"capacity": "1Gi"}}"#),
    (
        "spec.volumes[0].emptyDisk.capacity",
        r#"{"/spec/volumes/0": {"name": "root", "emptyDisk": {"capacity": 0}}}"#,
    ),
    (
        "spec.volumes[0].hostDisk.path",
        r#"{"/spec/volumes/0": {"name": "root", "hostDisk": {"path": "a", "type": "Disk"}}}"#,
    ),
    (
        "spec.volumes[0].hostDisk.path",
        r#"{"/spec/volumes/0": {"name": "root", "hostDisk": {"path": "/dev/sda", "type": "Disk"}}}"#,
    ),
    (
        "spec.volumes[0].hostDisk.type",
        r#"{"/spec/volumes/0": {"name": "root", "hostDisk": {"path": "/a.qcow2", "type": "DiskOrCreate", "capacity": "1Gi"}}}"#,
    ),
    (
        "spec.volumes[0].hostDisk.capacity",
        r#"{"/spec/volumes/0": {"name": "root", "hostDisk": {"path": "/a", "type": "DiskOrCreate"}}}"#,
    ),
    (
        "spec.volumes[0].hostDisk.capacity",
        r#"{"/spec/volumes/0": {"name": "root", "hostDisk": {"path": "/a", "type": "DiskOrCreate", "capacity": 0}}}"#,
    ),
    (
        "spec.volumes[0].hostDisk.capacity",
        r#"{"/spec/volumes/0": {"name": "root", "hostDisk": {"path": "/a", "type": "Disk", "capacity": "1Gi"}}}"#,
    ),
    ("spec.volumes[0].containerDisk.image", r#"{"/spec/volumes/0/containerDisk/image": ""}"#),
    ("spec.volumes[0].containerDisk.image", r#"{"/spec/volumes/0/containerDisk/image": "a b"}"#),
    ("spec.volumes[0].containerDisk.path", r#"{"/spec/volumes/0/containerDisk/path": "a"}"#),
    (
        "spec.volumes[0].containerDisk.imagePullPolicy",
        r#"{"/spec/volumes/0/containerDisk/imagePullPolicy": "Sometimes"}"#,
    ),
    (
        "spec.volumes[0].containerDisk.imagePullSecret",
        r#"{"/spec/volumes/0/containerDisk/imagePullSecret": "A"}"#,
    ),
    (
        "spec.volumes[0].persistentVolumeClaim.claimName",
        r#"{"/spec/volumes/0": {"name": "root", "persistentVolumeClaim": {"claimName": ""}}}"#,
    ),
    (
        "spec.volumes[0].dataVolume.name",
        r#"{"/spec/volumes/0": {"name": "root", "dataVolume": {"name": ""}}}"#,
    ),
    (
        "spec.volumes[0].ephemeral.persistentVolumeClaim",
        r#"{"/spec/volumes/0": {"name": "root", "ephemeral": {}}}"#,
    ),
    ("spec.volumes[0].configMap.name", r#"{"/spec/volumes/0": {"name": "root", "configMap": {}}}"#),
    (
        "spec.volumes[0].configMap.volumeLabel",
        r#"{"/spec/volumes/0": {"name": "root", "configMap": {"name": "a", "volumeLabel": "longer than eleven"}}}"#,
    ),
    ("spec.volumes[0].secret.secretName", r#"{"/spec/volumes/0": {"name": "root", "secret": {}}}"#),
    (
        "spec.volumes[0].downwardAPI.fields[0].path",
        r#"{"/spec/volumes/0": {"name": "root", "downwardAPI": {"fields": [{"path": "../a", "fieldRef": {"fieldPath": "metadata.name"}}]}}}"#,
    ),
    (
        "spec.volumes[0].downwardAPI.fields[0]",
        r#"{"/spec/volumes/0": {"name": "root", "downwardAPI": {"fields": [{"path": "a"}]}}}"#,
    ),
    (
        "spec.volumes[0].downwardAPI.fields[1].path",
        r#"{"/spec/volumes/0": {"name": "root", "downwardAPI": {"fields": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name"}}, {"path": "A", "fieldRef": {"fieldPath": "metadata.name"}}]}}}"#,
    ),
    (
        "spec.volumes[1].persistentVolumeClaim.claimName",
        r#"{"/spec/domain/devices/disks": [{"name": "root"}, {"name": "b"}], "/spec/volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "a"}}, {"name": "b", "persistentVolumeClaim": {"claimName": "a"}}]}"#,
    ),
    ("spec.volumes[0].cloudInitNoCloud", r#"{"/spec/volumes/0": {"name": "root", "cloudInitNoCloud": {}}}"#),
    (
        "spec.volumes[0].cloudInitNoCloud",
        r#"{"/spec/volumes/0": {"name": "root", "cloudInitNoCloud": {"userData": "a", "userDataBase64": "YQ=="}}}"#,
    ),
    (
        "spec.volumes[0].cloudInitConfigDrive.userDataBase64",
        r#"{"/spec/volumes/0": {"name": "root", "cloudInitConfigDrive": {"userDataBase64": "?"}}}"#,
    ),
    (
        "spec.volumes[0].cloudInitNoCloud.secretRef.name",
        r#"{"/spec/volumes/0": {"name": "root", "cloudInitNoCloud": {"secretRef": {}}}}"#,
    ),
    (
        "spec.volumes[1].cloudInitConfigDrive",
        r#"{"/spec/domain/devices/disks": [{"name": "root"}, {"name": "b"}], "/spec/volumes": [{"name": "root", "cloudInitNoCloud": {"userData": "a"}}, {"name": "b", "cloudInitConfigDrive": {"userData": "a"}}]}"#,
    ),
];

const OF_NETWORKS: &[Case] = &[
    ("spec.domain.devices.interfaces[0].name", r#"{"/spec/networks": []}"#),
    ("spec.networks[0].name", r#"{"/spec/domain/devices/interfaces": []}"#),
    ("spec.domain.devices.interfaces[0]", r#"{"/spec/domain/devices/interfaces/0": {"name": "default"}}"#),
    ("spec.domain.devices.interfaces[0]", r#"{"/spec/domain/devices/interfaces/0/bridge": {}}"#),
    (
        "spec.domain.devices.interfaces[0].macAddress",
        r#"{"/spec/domain/devices/interfaces/0/macAddress": "x"}"#,
    ),
    (
        "spec.domain.devices.interfaces[0].macAddress",
        r#"{"/spec/domain/devices/interfaces/0": {"name": "default", "sriov": {}, "macAddress": "02:00:00:00:00:01"}}"#,
    ),
    (
        "spec.domain.devices.interfaces[1].macAddress",
        r#"{"/spec/domain/devices/interfaces": [{"name": "default", "masquerade": {}, "macAddress": "02:00:00:00:00:01"}, {"name": "b", "bridge": {}, "macAddress": "02:00:00:00:00:01"}]}"#,
    ),
    ("spec.networks[0]", r#"{"/spec/networks/0": {"name": "default"}}"#),
    (
        "spec.networks[0].multus",
        r#"{"/spec/networks/0": {"name": "default", "multus": {"networkName": "a"}}}"#,
    ),
    (
        "spec.domain.devices.interfaces[0].masquerade",
        r#"{"/spec/networks/0": {"name": "default", "multus": {"networkName": "a"}}}"#,
    ),
    (
        "spec.networks[0].multus.networkName",
        r#"{"/spec/domain/devices/interfaces/0": {"name": "default", "sriov": {}}, "/spec/networks/0": {"name": "default", "multus": {"networkName": "a"}}}"#,
    ),
    (
        "spec.networks[1].pod",
        r#"{"/spec/networks": [{"name": "default", "pod": {}}, {"name": "b", "pod": {}}]}"#,
    ),
    ("spec.networks[0].pod.vmNetworkCIDR", r#"{"/spec/networks/0/pod": {"vmNetworkCIDR": "10.0.0.0/31"}}"#),
    (
        "spec.domain.devices.interfaces[0].ports",
        r#"{"/spec/domain/devices/interfaces/0": {"name": "default", "bridge": {}, "ports": [{"port": 80}]}}"#,
    ),
    (
        "spec.domain.devices.interfaces[0].ports[0].port",
        r#"{"/spec/domain/devices/interfaces/0/ports": [{"port": 65536}]}"#,
    ),
    (
        "spec.domain.devices.interfaces[0].ports[0].protocol",
        r#"{"/spec/domain/devices/interfaces/0/ports": [{"port": 80, "protocol": "SCTP"}]}"#,
    ),
    (
        "spec.domain.devices.interfaces[0].ports[1].name",
        r#"{"/spec/domain/devices/interfaces/0/ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}"#,
    ),
    (
        "spec.domain.devices.interfaces[0].ports[1]",
        r#"{"/spec/domain/devices/interfaces/0/ports": [{"port": 80}, {"port": 80}]}"#,
    ),
    (
        "spec.domain.devices.interfaces[0].dhcpOptions.ntpServers[0]",
        r#"{"/spec/domain/devices/interfaces/0/dhcpOptions": {"ntpServers": ["a"]}}"#,
    ),
    (
        "spec.domain.devices.interfaces[0].dhcpOptions.privateOptions[0].option",
        r#"{"/spec/domain/devices/interfaces/0/dhcpOptions": {"privateOptions": [{"option": 3, "value": "a"}]}}"#,
    ),
    (
        "spec.domain.devices.interfaces[0].dhcpOptions.privateOptions[1].option",
        r#"{"/spec/domain/devices/interfaces/0/dhcpOptions": {"privateOptions": [{"option": 240, "value": "a"}, {"option": 240, "value": "b"}]}}"#,
    ),
    (
        "spec.domain.devices.interfaces[0].dhcpOptions.privateOptions[0].value",
        r#"{"/spec/domain/devices/interfaces/0/dhcpOptions": {"privateOptions": [{"option": 240, "value": ""}]}}"#,
    ),
];

const OF_MACHINES: &[Case] = &[
    ("spec.running", r#"{"/spec/running": true}"#),
    ("spec.runStrategy", r#"{"/spec/runStrategy": null}"#),
    ("spec.runStrategy", r#"{"/spec/runStrategy": "Sometimes"}"#),
    ("spec.template.metadata.name", r#"{"/spec/template/metadata/name": "other"}"#),
    ("spec.template.spec.domain.cpu.coers", r#"{"/spec/template/spec/domain/cpu/coers": 2}"#),
    (
        "spec.template.metadata.annotations[\"hooks.kubevirt.io/hookSidecars\"]",
        r#"{"/spec/template/metadata/annotations": {"hooks.kubevirt.io/hookSidecars": "[]"}}"#,
    ),
    (
        "spec.template.metadata.annotations[\"pinion.dev/backend\"]",
        r#"{"/spec/template/metadata/annotations": {"pinion.dev/backend": "qemu"}}"#,
    ),
];

/// Fewer than no replicas the API server itself refuses.
const OF_REPLICA_SETS: &[Case] = &[
    ("spec.selector", r#"{"/spec/selector": {}}"#),
    (
        "spec.selector.matchExpressions[0]",
        r#"{"/spec/selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}"#,
    ),
    (
        "spec.selector.matchExpressions[0]",
        r#"{"/spec/selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}"#,
    ),
    (
        "spec.selector.matchExpressions[0]",
        r#"{"/spec/selector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}"#,
    ),
    ("spec.template.metadata.labels", r#"{"/spec/template/metadata/labels": {"app": "b"}}"#),
];
