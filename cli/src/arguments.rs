//! What can be typed: the commands, their options and their help.
//!
//! Owns no behaviour. Each command's options are a struct that its module takes.

mod devices;
mod system;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use pinion_discovery::From as MachineSource;
use pinion_machine::CpuSet;

use crate::backend::BackendChoice;
use crate::qualify::{Load, Subject};
pub(crate) use devices::{
    DeviceFormat, DeviceListOptions, DevicePluginOptions, DeviceResourcesOptions, DevicesCommand,
    DevicesOptions,
};
pub(crate) use system::{ActOptions, ExecOptions, ShownOptions, SystemCommand, SystemOptions};

/// Deterministic virtual machines on Linux.
#[derive(Debug, Parser)]
#[command(name = "pinion", version, about, long_about = LONG_ABOUT, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const LONG_ABOUT: &str = "Deterministic virtual machines on Linux.\n\n\
Pinion takes a KubeVirt VM spec (kubevirt.io/v1), decides where every vCPU, page and I/O thread goes, boots the \
guest under KVM, and proves from the kernel's own files that everything is where the plan says.";

const EXIT_CODES: &str = "Exit codes:
  0   done; the guest ended by itself or on request
  1   failed, or `doctor` found that a guest could not run
  2   invalid input: nothing was changed
  3   refused: the machine has no room for the request
  10  the guest ignored the power button and was stopped by force
  11  the guest crashed
  12  the virtual machine monitor or the host failed
  13  the placement could not be verified: the guest was not started";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the machine: packages, NUMA nodes, caches, cores, CPUs, devices, and who holds what
    Topology(TopologyOptions),
    /// Show where a VM would go, or why it cannot
    Plan(PlanOptions),
    /// Run the VMs of a file on this host
    Run(RunOptions),
    /// List the guests of this host
    Ps(PsOptions),
    /// Press the power button of guests, and wait for their end
    Stop(StopOptions),
    /// Connect this terminal to a guest's serial console (Ctrl-] leaves it)
    Console(NameOptions),
    /// Show what a guest's serial console printed last
    Logs(LogsOptions),
    /// Stop the vCPUs of guests where they are
    Pause(ActOptions),
    /// Let paused guests go on
    Unpause(ActOptions),
    /// Reset guests at once, as a reset button would
    Reset(ActOptions),
    /// Ask the systems inside guests to reboot
    SoftReboot(ActOptions),
    /// Ask the agent inside a guest: system, addresses, file systems; freeze, run programs
    Guest(SystemOptions),
    /// Show everything that is known of a guest: spec, placement, certificate
    Inspect(NameOptions),
    /// Check now that everything of guests is where it was planned
    Audit(AuditOptions),
    /// Measure what dedicated CPUs really give: every gap, idle and under load, with its cause
    Qualify(QualifyOptions),
    /// Run the node's daemon: it keeps the ledger and the host's settings, and serves metrics and a page
    Agent(AgentOptions),
    /// Run the device plugin: it tells the kubelet which devices of this node containers can have
    DevicePlugin(DevicePluginOptions),
    /// Show what this host has and lacks for deterministic guests
    Doctor(DoctorOptions),
    /// Show the PCI devices that can be given to a guest, and what stands in the way of the others
    Devices(DevicesOptions),
    /// Look into disk images: what is on them, and what would boot
    Image(ImageOptions),
    /// Write a VM spec for an existing domain of libvirt, to move a VM from another platform
    Import(ImportOptions),
    /// Put back what guests that are gone have changed of this host: interrupts, power settings, drivers
    Restore(RestoreOptions),
    /// Print the completion script of a shell
    Completion(CompletionOptions),
}

/// Where the machine and its ledger are read from.
#[derive(Clone, Debug, Args)]
pub(crate) struct MachineOptions {
    /// Machine to look at: host, xml:FILE, synthetic:TEXT (hwloc) or sysfs:DIR (a gathered tree)
    #[arg(long, value_name = "SOURCE", default_value = "host")]
    pub(crate) from: MachineSource,
    /// Ledger of who holds what [default: /run/pinion/ledger.json for the host, else none]
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
    /// CPUs that are never dedicated, as a list such as 0-1,8 [default: the ledger's, else the first core]
    #[arg(long, value_name = "CPUS")]
    pub(crate) housekeeping: Option<CpuSet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PictureFormat {
    /// Boxes for a terminal
    Text,
    /// One JSON document
    Json,
    /// A picture for a browser
    Svg,
}

#[derive(Debug, Args)]
pub(crate) struct ImageOptions {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Show partitions, file systems and boot entries of a disk image, and what would boot
    Inspect(InspectImageOptions),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion image inspect debian-12.qcow2
  pinion image inspect /dev/vg0/guest -o json | jq '.entries[] | select(.isDefault)'

Exit codes: 0 it boots directly, 1 it does not, 2 it is no image.")]
pub(crate) struct InspectImageOptions {
    /// Disk image or block device
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Format of the image [default: by the file's name, then by its first bytes]
    #[arg(long, value_enum)]
    pub(crate) format: Option<DiskFormat>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) output: ReportFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion import web > web.yaml
  pinion import web --connect qemu+ssh://root@old.example.com/system -n prod > web.yaml
  virsh dumpxml --inactive web | pinion import --file - > web.yaml
  pinion import web > web.yaml && pinion plan web.yaml

The spec is printed on standard output; on standard error, a note for everything that is not
carried over, or otherwise than it was, with what to do. Nothing is changed, here or there.

Exit codes: 0 imported, 2 invalid input: nothing is printed on standard output.")]
pub(crate) struct ImportOptions {
    /// Domain: its name, UUID or number, as `virsh list --all` shows it
    #[arg(value_name = "DOMAIN", required_unless_present = "file", conflicts_with = "file")]
    pub(crate) domain: Option<String>,
    /// Document to read instead, as `virsh dumpxml` prints it; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Where libvirt is [default: qemu:///system]
    #[arg(short, long, value_name = "URI", conflicts_with = "file")]
    pub(crate) connect: Option<String>,
    /// Namespace of the VM
    #[arg(short, long, value_name = "NAMESPACE", default_value = pinion_api::DEFAULT_NAMESPACE)]
    pub(crate) namespace: String,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = SpecFormat::Yaml)]
    pub(crate) output: SpecFormat,
}

/// How a spec is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpecFormat {
    /// As kubectl writes it
    Yaml,
    /// One JSON document
    Json,
}

/// What is inside an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiskFormat {
    /// The disk, byte for byte
    Raw,
    /// QEMU's copy-on-write format
    Qcow2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people
    Text,
    /// One JSON document
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion topology
  pinion topology -o svg > machine.svg
  pinion topology --from 'synthetic:pack:2 [numa(memory=34359738368)] l3:2 core:4 pu:2'
  pinion topology --from xml:server.xml -o json")]
pub(crate) struct TopologyOptions {
    #[command(flatten)]
    pub(crate) machine: MachineOptions,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = PictureFormat::Text)]
    pub(crate) output: PictureFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion plan vm.yaml
  pinion plan vm.yaml -o json | jq '.vcpus[] | {id, cpu}'
  pinion plan vm.yaml --from xml:server.xml --ledger ledger.json
  cat vm.yaml | pinion plan -

Exit codes: 0 placed, 3 refused, 2 invalid input.")]
pub(crate) struct PlanOptions {
    /// VM spec, YAML or JSON; - reads standard input
    #[arg(value_name = "VM.yaml")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) machine: MachineOptions,
    /// What device names stand for [default: /etc/pinion/devices.yaml]
    #[arg(long, value_name = "FILE")]
    pub(crate) devices: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = PictureFormat::Text)]
    pub(crate) output: PictureFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion run vm.yaml
  pinion run vm.yaml --console
  pinion run vm.yaml --detach && pinion ps
  pinion run vm.yaml --metrics 127.0.0.1:9090 --certificate certificate.json
  pinion run vm.yaml --bind --devices devices.yaml
  pinion run vm.yaml --backend libvirt
  pinion run vm.yaml --dry-run
  cat vm.yaml | pinion run -

SIGTERM and Ctrl-C press the guest's power button; what still runs after its
terminationGracePeriodSeconds is stopped by force, and so is on a second signal.")]
pub(crate) struct RunOptions {
    /// VM spec, YAML or JSON; - reads standard input
    #[arg(value_name = "VM.yaml")]
    pub(crate) file: PathBuf,
    /// What device names stand for [default: /etc/pinion/devices.yaml]
    #[arg(long, value_name = "FILE")]
    pub(crate) devices: Option<PathBuf>,
    /// Bind the devices that the VMs need to vfio-pci, and give them back at the end
    #[arg(long)]
    pub(crate) bind: bool,
    /// What runs the VMs
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub(crate) backend: BackendChoice,
    /// Leave the host's interrupts and power settings as they are, dedicated CPUs or not
    #[arg(long)]
    pub(crate) leave_host_settings: bool,
    /// Connect this terminal to the guest's serial console (Ctrl-] ends it)
    #[arg(long, conflicts_with = "detach")]
    pub(crate) console: bool,
    /// Return once the guests run, and leave them to the node agent (see `pinion ps`, `pinion stop`)
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Serve Prometheus metrics on this address, such as 127.0.0.1:9090 (the next VMs of the file on the next ports)
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Write the placement certificate to this file, and keep it up to date (with several VMs: FILE.NAME)
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// Seconds between checks of the certificate while the guest runs
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) audit_interval: u64,
    /// Report drift of the placement, but do not repair it
    #[arg(long)]
    pub(crate) no_repair: bool,
    /// Plan and print, but start and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Ledger of who holds what
    #[arg(long, value_name = "FILE", default_value = pinion_node_agent::DEFAULT_LEDGER_PATH)]
    pub(crate) ledger: PathBuf,
    /// CPUs that are never dedicated, as a list such as 0-1,8 [default: the ledger's, else the first core]
    #[arg(long, value_name = "CPUS")]
    pub(crate) housekeeping: Option<CpuSet>,
}

/// Where guests are looked for.
#[derive(Debug, Args)]
pub(crate) struct GuestOptions {
    /// Namespace of guests that are named without one
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
    /// Ledger of who holds what
    #[arg(long, value_name = "FILE", default_value = pinion_node_agent::DEFAULT_LEDGER_PATH)]
    pub(crate) ledger: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion ps
  pinion ps -o wide
  pinion ps -o json | jq -r '.items[] | select(.status.verdict != \"holds\") | .name'")]
pub(crate) struct PsOptions {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = DeviceFormat::Text)]
    pub(crate) output: DeviceFormat,
    /// Ledger of who holds what
    #[arg(long, value_name = "FILE", default_value = pinion_node_agent::DEFAULT_LEDGER_PATH)]
    pub(crate) ledger: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion stop my-vm
  pinion stop -n lab a b c
  pinion stop my-vm --force

A guest that ignores the power button is ended by force after its
terminationGracePeriodSeconds.")]
pub(crate) struct StopOptions {
    /// Guests, as `pinion ps` shows them
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// End them at once
    #[arg(long)]
    pub(crate) force: bool,
    /// Seconds to wait for their end
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) guests: GuestOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion console my-vm
  pinion inspect my-vm | jq .placement.vcpus")]
pub(crate) struct NameOptions {
    /// Guest, as `pinion ps` shows it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) guests: GuestOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion logs my-vm
  pinion logs -f my-vm

The launcher remembers the last 256 KiB.")]
pub(crate) struct LogsOptions {
    #[command(flatten)]
    pub(crate) of: NameOptions,
    /// Go on until the guest's end
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion audit
  pinion audit my-vm -o json

Exit codes: 0 nothing drifted, 1 something did.")]
pub(crate) struct AuditOptions {
    /// Guests, as `pinion ps` shows them [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) output: ReportFormat,
    #[command(flatten)]
    pub(crate) guests: GuestOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo pinion qualify
  sudo pinion qualify --cpus 4-7 --for 60 --plot gaps.svg
  sudo pinion qualify --subject guest --load memory -o json | jq .latencyClass

The CPUs are taken and isolated as a guest's are. Each phase takes the time given: by default
there are four, by a guest without an operating system and by a host thread, idle and under load.")]
pub(crate) struct QualifyOptions {
    /// CPUs to measure, as a list such as 4-7,12 [default: all that are free]
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpus: Option<CpuSet>,
    /// Seconds for each phase
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 60, value_parser = seconds)]
    pub(crate) seconds: u64,
    /// Who measures, one after the other
    #[arg(long = "subject", value_enum, value_name = "SUBJECT", value_delimiter = ',', default_values_t = [Subject::Guest, Subject::Host])]
    pub(crate) subjects: Vec<Subject>,
    /// What runs on the other CPUs meanwhile, one after the other
    #[arg(long = "load", value_enum, value_name = "LOAD", value_delimiter = ',', default_values_t = [Load::None, Load::Memory])]
    pub(crate) loads: Vec<Load>,
    /// Gaps from this length on are blamed on somebody, such as 5us or 1ms
    #[arg(long, value_name = "TIME", default_value = "5us", value_parser = short_time)]
    pub(crate) blame_from: std::time::Duration,
    /// Draw the gaps into this file
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Keep the result in this file, where the node agent reads it
    #[arg(long, value_name = "FILE", default_value = pinion_node_agent::DEFAULT_QUALIFICATION_PATH)]
    pub(crate) save: PathBuf,
    /// Do not keep the result
    #[arg(long)]
    pub(crate) no_save: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) output: ReportFormat,
    /// Ledger of who holds what
    #[arg(long, value_name = "FILE", default_value = pinion_node_agent::DEFAULT_LEDGER_PATH)]
    pub(crate) ledger: PathBuf,
    /// CPUs that are never dedicated, as a list such as 0-1,8 [default: the ledger's, else the first core]
    #[arg(long, value_name = "CPUS")]
    pub(crate) housekeeping: Option<CpuSet>,
}

/// `60`, `60s`, `10m`.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    seconds
        .filter(|s| (1..=86_400).contains(s))
        .ok_or_else(|| "give 1 s to 24 h, such as 60s or 10m".to_owned())
}

/// `5us`, `1ms`.
fn short_time(text: &str) -> Result<std::time::Duration, String> {
    let units = [("us", 1_000), ("ms", 1_000_000), ("ns", 1)];
    let parsed = units
        .into_iter()
        .find_map(|(unit, ns)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(ns));
    parsed.map(std::time::Duration::from_nanos).ok_or_else(|| "give a time such as 5us or 1ms".to_owned())
}

/// As Kubernetes has names of nodes (RFC 1123).
fn node_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let is_name = !text.is_empty() && text.len() <= 253 && text.chars().all(allowed);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let ends = text.ends_with(|c: char| c.is_ascii_alphanumeric());
    if is_name && begins && ends {
        Ok(text.to_owned())
    } else {
        Err("give the name that `kubectl get nodes` shows".to_owned())
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo pinion agent
  sudo pinion agent --listen 0.0.0.0:9180 --group pinion
  sudo KUBECONFIG=/etc/kubernetes/kubelet.conf pinion agent --node $(hostname)

With --node it is the agent of a node of a cluster: it publishes what the node is, who has what on
it and how its guests are, as the node's NodeLedger. It finds the API server by its service account
or KUBECONFIG.

Guests run on when it ends, and it takes them over when it is started again.")]
pub(crate) struct AgentOptions {
    /// Address of its pages: /, /metrics, /healthz, /readyz
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9180")]
    pub(crate) listen: SocketAddr,
    /// Serve no pages
    #[arg(long)]
    pub(crate) no_pages: bool,
    /// What this node is for: CPUs, huge pages, switches of the kernel; read again when it changes
    #[arg(long, value_name = "FILE", default_value = pinion_node_agent::DEFAULT_PROFILE_PATH)]
    pub(crate) profile: PathBuf,
    /// What `pinion qualify` has measured
    #[arg(long, value_name = "FILE", default_value = pinion_node_agent::DEFAULT_QUALIFICATION_PATH)]
    pub(crate) qualification: PathBuf,
    /// Group whose members may run guests [default: root only]
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// The kubelet's folder of seccomp profiles, to write that of launchers in pods to
    #[arg(long, value_name = "FOLDER")]
    pub(crate) seccomp: Option<PathBuf>,
    /// Node of a cluster that this host is, by its name there [default: none, and nothing is published]
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = node_name)]
    pub(crate) node: Option<String>,
    /// Ledger of who holds what
    #[arg(long, value_name = "FILE", default_value = pinion_node_agent::DEFAULT_LEDGER_PATH)]
    pub(crate) ledger: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo pinion restore

`pinion run` puts everything back when a guest ends, however it ends. This is for when that
command itself was killed; the next `pinion run` would do the same. What guests that still
run have asked for stays.")]
pub(crate) struct RestoreOptions {
    /// Ledger of who holds what, and of what was changed
    #[arg(long, value_name = "FILE", default_value = pinion_node_agent::DEFAULT_LEDGER_PATH)]
    pub(crate) ledger: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion doctor
  pinion doctor -o json | jq '.checks[] | select(.verdict != \"ok\")'

Exit codes: 0 a guest can run here, 1 it cannot.")]
pub(crate) struct DoctorOptions {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) output: ReportFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinion completion bash > /etc/bash_completion.d/pinion
  pinion completion zsh > ~/.zfunc/_pinion
  pinion completion fish > ~/.config/fish/completions/pinion.fish")]
pub(crate) struct CompletionOptions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}
