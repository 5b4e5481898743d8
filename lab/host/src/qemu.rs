//! QEMU's command line for a shape.

use std::path::{Path, PathBuf};

use crate::{Attach, Card, LabError, Shape};

/// Where a lab's files are on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) console: &'a Path,
    pub(crate) agent: &'a Path,
    pub(crate) monitor: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) disks: &'a [(PathBuf, Attach)],
    pub(crate) cards: &'a [Card],
}

/// All arguments.
pub(crate) fn arguments(shape: &Shape, places: &Places<'_>) -> Result<Vec<String>, LabError> {
    shape.check()?;
    let mut words = Words(Vec::new());
    words.machine(shape);
    words.nodes(shape);
    words.devices(shape, places.folder);
    words.disks(places.disks);
    for (number, card) in places.cards.iter().enumerate() {
        for (flag, value) in card.words(number) {
            words.add(flag, value);
        }
    }
    words.add("-kernel", places.kernel.display().to_string());
    words.add("-initrd", places.initramfs.display().to_string());
    words.add("-append", command_line(shape));
    words.add("-serial", format!("file:{}", places.console.display()));
    words.add("-chardev", format!("socket,id=agent,path={}", places.agent.display()));
    words.add("-chardev", format!("socket,id=monitor,path={}", places.monitor.display()));
    words.add("-mon", "chardev=monitor,mode=readline".to_owned());
    words.add("-device", "virtio-serial-pci,bus=pcie.0".to_owned());
    words.add("-device", "virtserialport,chardev=agent,name=agent".to_owned());
    Ok(words.0)
}

/// What the model has and software emulation has not.
const NOT_EMULATED: [&str; 22] = [
    "erms",
    "pcid",
    "invpcid",
    "rdseed",
    "sha-ni",
    "rdpid",
    "fsrm",
    "fxsr-opt",
    "misalignsse",
    "3dnowprefetch",
    "osvw",
    "perfctr-core",
    "clzero",
    "xsaveerptr",
    "wbnoinvd",
    "ibpb",
    "ibrs",
    "amd-stibp",
    "amd-ssbd",
    "nrip-save",
    "xsavec",
    "xsaves",
];

/// An EPYC with SVM, so that KVM runs inside, and an L3 for each die. Without the topology extension,
/// which emulation takes away unless it is forced, Linux would not see SMT siblings.
fn processor() -> String {
    let off: String = NOT_EMULATED.iter().map(|name| format!(",{name}=off")).collect();
    format!("EPYC-Milan,svm=on,topoext=on,x-force-features=on{off}")
}

/// Files for the drives that the shape names: number of drives.
pub(crate) fn drives(shape: &Shape) -> usize {
    shape.nodes.iter().flat_map(|n| &n.devices).filter(|d| d.is_drive()).count()
}

/// What every lab kernel is told. The second line is for speed alone: under emulation, a clock that is
/// doubted, waiting for grace periods and patching for mitigations take two thirds of the boot.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 intel_iommu=on iommu=pt \
    init_on_alloc=0 tsc=reliable no_timer_check rcupdate.rcu_expedited=1 mitigations=off nokaslr nowatchdog audit=0 cryptomgr.notests";

fn command_line(shape: &Shape) -> String {
    format!("{KERNEL_ARGUMENTS} {}", shape.kernel_arguments).trim_end().to_owned()
}

struct Words(Vec<String>);

impl Words {
    fn add(&mut self, flag: &str, value: String) {
        self.0.push(flag.to_owned());
        self.0.push(value);
    }

    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn machine(&mut self, shape: &Shape) {
        let Shape { sockets, dies, cores, threads, .. } = shape;
        let memory: u32 = shape.nodes.iter().map(|n| n.memory_mib).sum();
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            self.flag(flag);
        }
        self.add("-display", "none".to_owned());
        self.add("-M", "q35,kernel-irqchip=split".to_owned());
        self.add("-accel", "tcg,thread=multi".to_owned());
        self.add("-cpu", processor());
        self.add(
            "-smp",
            format!("{},sockets={sockets},dies={dies},cores={cores},threads={threads}", shape.cpus()),
        );
        self.add("-m", format!("{memory}M"));
        self.add("-device", "intel-iommu,intremap=on".to_owned());
    }

    fn nodes(&mut self, shape: &Shape) {
        for (id, (node, cpus)) in shape.nodes.iter().zip(shape.cpus_of_nodes()).enumerate() {
            self.add("-object", format!("memory-backend-ram,id=mem{id},size={}M", node.memory_mib));
            let cpus = cpus.map(|(first, last)| format!(",cpus={first}-{last}")).unwrap_or_default();
            self.add("-numa", format!("node,nodeid={id},memdev=mem{id}{cpus}"));
        }
        for (from, row) in shape.distances.iter().enumerate() {
            for (to, distance) in row.iter().enumerate().filter(|(to, _)| *to != from) {
                self.add("-numa", format!("dist,src={from},dst={to},val={distance}"));
            }
        }
    }

    /// Disks of this machine; nobody's data is on what is written.
    fn disks(&mut self, disks: &[(PathBuf, Attach)]) {
        for (number, (image, attach)) in disks.iter().enumerate() {
            let snapshot = if *attach == Attach::Snapshot { "on" } else { "off" };
            let file = image.display();
            let drive =
                format!("if=none,id=disk{number},format=raw,snapshot={snapshot},cache=unsafe,file={file}");
            self.add("-drive", drive);
            self.add("-device", format!("virtio-blk-pci,drive=disk{number},bus=pcie.0"));
        }
    }

    /// Each node with devices gets a PCI expander, and each device a root port on it.
    fn devices(&mut self, shape: &Shape, folder: &Path) {
        let (mut port, mut drive) = (0, 0);
        for (node, spec) in shape.nodes.iter().enumerate().filter(|(_, n)| !n.devices.is_empty()) {
            let bus = 32 + node * 16;
            self.add("-device", format!("pxb-pcie,id=pxb{node},bus_nr={bus},bus=pcie.0,numa_node={node}"));
            for device in &spec.devices {
                port += 1;
                self.add("-device", format!("pcie-root-port,id=port{port},bus=pxb{node},chassis={port}"));
                if device.is_drive() {
                    drive += 1;
                    let file = folder.join(format!("nvme{drive}.img"));
                    self.add("-drive", format!("if=none,id=nvme{drive},format=raw,file={}", file.display()));
                }
                if let Some(mib) = device.memory_mib() {
                    self.add("-object", format!("memory-backend-ram,id=shared{port},size={mib}M,share=on"));
                }
                let functions = device.has_virtual_functions();
                if functions {
                    self.add("-device", format!("nvme-subsys,id=subsystem{port}"));
                }
                self.add(
                    "-device",
                    format!("{},id=device{port},bus=port{port}", device.argument(drive, port)),
                );
                if matches!(device, crate::Device::Pair) {
                    self.add("-device", format!("nvme,serial=lab-pair-{port},bus=port{port},addr=0.1"));
                }
                if functions {
                    self.add("-device", format!("nvme-ns,drive=nvme{drive},bus=device{port},shared=on"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_becomes_arguments() {
        let here = Path::new("x");
        let places = Places {
            kernel: here,
            initramfs: here,
            console: here,
            agent: here,
            monitor: here,
            folder: here,
            disks: &[],
            cards: &[],
        };
        let text = arguments(&Shape::two_socket(), &places).unwrap().join(" ");
        for part in [
            "-smp 16,sockets=2,dies=2,cores=2,threads=2",
            "-numa node,nodeid=3,memdev=mem3,cpus=12-15",
            "-numa dist,src=0,dst=2,val=32",
            "pxb-pcie,id=pxb1,bus_nr=48,bus=pcie.0,numa_node=1",
            "nvme,serial=lab-2,drive=nvme2,id=device4,bus=port4",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
