//! The machines, and what can be seen of them from outside.

use std::cell::Cell;

use serde_json::Value;

use crate::stage::Stage;

/// The machine of KubeVirt's guide as `kubectl get -o yaml` prints it, with another image and more memory; and a Service.
pub(crate) const SEED: &str = concat!(
    include_str!("testvm.yaml"),
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: testvm}\n\
     spec: {selector: {kubevirt.io/domain: testvm}, ports: [{port: 80}]}\n"
);

/// One core to itself, 2 MiB pages and a device beside it, and the pod's network.
pub(crate) const OWN: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: own}
spec:
  runStrategy: Always
  template:
    metadata: {labels: {app: own}}
    spec:
      terminationGracePeriodSeconds: 60
      domain:
        cpu: {cores: 1, threads: 2, dedicatedCpuPlacement: true, numa: {guestMappingPassthrough: {}}}
        memory: {guest: 128Mi, hugepages: {pageSize: 2Mi}}
        firmware:
          kernelBoot:
            kernelArgs: quiet console=ttyS0 tsc=reliable no_timer_check rcupdate.rcu_expedited=1 mitigations=off cryptomgr.notests
            container: {image: pinion.dev/lab/guest:1, kernelPath: /boot/vmlinuz, initrdPath: /boot/initrd, imagePullPolicy: Never}
        devices:
          hostDevices: [{name: edu, deviceName: example.com/edu}]
          interfaces: [{name: default, masquerade: {}, ports: [{port: 80}]}]
      networks: [{name: default, pod: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: own}
spec:
  selector: {app: own}
  ports: [{port: 80}]
";

/// The same in ordinary pages, with a TPM, a container disk that it writes to, and another disk on a bus that only QEMU has.
pub(crate) fn on_qemu() -> String {
    let disks = "        devices:\n          tpm: {}\n          disks: [{name: image, disk: {bus: virtio}}, {name: scratch, disk: {bus: sata}}]\n";
    let volumes = "      volumes: [{name: image, containerDisk: {image: pinion.dev/lab/disk:1, imagePullPolicy: Never}}, \
        {name: scratch, emptyDisk: {capacity: 1Mi}}]\n      networks:";
    OWN.replace("name: own", "name: on-qemu")
        .replace("app: own", "app: on-qemu")
        .replace(", hugepages: {pageSize: 2Mi}", "")
        .replace("        devices:\n", disks)
        .replace("      networks:", volumes)
}

/// How a backend's guest is seen from outside: its process, what its vCPUs' names begin with, and what the kernel says of its
/// memory.
#[derive(Clone, Copy)]
pub(crate) struct Backend {
    process: &'static str,
    vcpu: &'static str,
    memory: &'static str,
    pages: u64,
}

/// Our own virtual machine monitor, in 2 MiB pages.
const NATIVE: Backend = Backend { process: "pinion-launcher", vcpu: "vcpu", memory: "huge", pages: 64 };
/// QEMU, in ordinary ones.
const QEMU: Backend =
    Backend { process: "qemu-system-x86", vcpu: "CPU ", memory: "memory-backend-memfd", pages: 32_768 };

/// A guest that runs.
pub(crate) struct Guest {
    pub(crate) name: &'static str,
    uid: String,
    /// Its name and identity.
    pub(crate) pod: (String, String),
    boot: String,
    up: Cell<u64>,
}

impl Guest {
    /// Waits until it runs and serves its page.
    pub(crate) fn running(stage: &Stage, name: &'static str) -> Self {
        let status = ["get", "vm", name, "-o", "jsonpath={.status.printableStatus}"];
        stage.until(&status, |said| said == "Running");
        let deterministic = "jsonpath={.status.conditions[?(@.type=='Deterministic')].reason}";
        stage.until(&["get", "vmi", name, "-o", deterministic], |said| said == "Holds");
        let pod = stage.field(
            &["pods", "-l", &format!("vm.kubevirt.io/name={name}")],
            "{.items[*].metadata.name} {.items[*].metadata.uid}",
        );
        let (pod, uid) = pod.split_once(' ').unwrap();
        let pod = (pod.to_owned(), uid.to_owned());
        stage.until(&["logs", &pod.0], |said| said.contains("ADDRESS 10.0.2.2") && said.contains("SERVING"));
        let uid = stage.field(&["vmi", name], "{.metadata.uid}");
        let guest = Self { name, uid, pod, boot: String::new(), up: Cell::new(0) };
        let page = guest.page(stage);
        let boot = part(&page, "boot=").to_owned();
        Self { boot, ..guest }
    }

    /// Its page, as another pod sees it through the Service.
    pub(crate) fn page(&self, stage: &Stage) -> String {
        let service = stage.field(&["service", self.name], "{.spec.clusterIP}");
        // Debian's static busybox cannot look up names of protocols, which its wget does.
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {service} 80");
        stage.until(&["exec", "client", "--", "sh", "-c", &ask], |said| said.contains("\nHELLO boot="))
    }

    /// It is the guest that it was, in the pod that it was in, and has not stood still.
    pub(crate) fn goes_on(&self, stage: &Stage) {
        let page = self.page(stage);
        assert_eq!(part(&page, "boot="), self.boot, "{}: {page}", self.name);
        let up: u64 = part(&page, "up=").parse().unwrap();
        assert!(up >= self.up.replace(up), "{page}");
        let state = "{.status.phase} {.status.containerStatuses[0].restartCount} {.metadata.uid}";
        let state = ["get", "pod", &self.pod.0, "-o", &format!("jsonpath={state}")];
        let wanted = format!("Running 0 {}", self.pod.1);
        stage.until(&state, |said| said == wanted);
        let instance = ["get", "vmi", self.name, "-o", "jsonpath={.metadata.uid} {.status.phase}"];
        let wanted = format!("{} Running", self.uid);
        stage.until(&instance, |said| said == wanted);
    }

    /// Its threads, its memory and its device are what its status says, and the ledger of its node.
    pub(crate) fn is_where_its_status_says(&self, stage: &Stage) {
        let placement: Value =
            serde_json::from_str(&stage.field(&["vmi", self.name], "{.status.pinion.placement}")).unwrap();
        let cpus = placement["cpus"].as_str().unwrap();
        let own: Vec<u32> = cpus.split(['-', ',']).map(|cpu| cpu.parse().unwrap()).collect();
        assert_eq!(own.len(), 2, "{placement}");
        let backend = if self.name == "on-qemu" { QEMU } else { NATIVE };
        let launcher = format!(
            "p=$(for p in $(pgrep -x {}); do grep -q {} /proc/$p/cgroup && echo $p; done)",
            backend.process, self.pod.1
        );
        let threads = stage.sh(&format!(
            "{launcher}; for s in /proc/$p/task/*/status; do \
             awk -F '\\t' '/^Name/ {{n=$2}} /^Cpus_allowed_list/ {{print n \"=\" $2}}' $s; done"
        ));
        for line in threads.lines() {
            let (name, list) = line.split_once('=').unwrap();
            let on_own = list.parse::<u32>().is_ok_and(|cpu| own.contains(&cpu));
            assert_eq!(on_own, name.starts_with(backend.vcpu), "{line}: {threads}");
        }
        let (memory, device) = (&placement["memory"][0], placement["devices"][0].as_str().unwrap());
        let node = stage.sh(&format!("cat /sys/bus/pci/devices/{device}/numa_node"));
        assert_eq!(
            (node.trim(), &memory["bytes"]),
            (memory["node"].to_string().as_str(), &Value::from(128 << 20))
        );
        let pages = stage.sh(&format!(
            "{launcher}; grep -o \"{}.* N{}=[0-9]*\" /proc/$p/numa_maps",
            backend.memory,
            node.trim()
        ));
        let all = format!("N{}={}", node.trim(), backend.pages);
        assert!(pages.lines().any(|line| line.ends_with(&all)), "{pages}");
        let open = stage.sh(&format!(
            "{launcher}; ls -l /proc/$p/fd; readlink /sys/bus/pci/devices/{device}/iommu_group"
        ));
        let group = open.trim_end().rsplit('/').next().unwrap();
        assert!(open.contains(&format!("/dev/vfio/{group}\n")), "{open}");
    }
}

/// A word of a page, after its name.
fn part<'a>(page: &'a str, name: &str) -> &'a str {
    page.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap_or_default()
}
