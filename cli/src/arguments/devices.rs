//! What is asked of the host's devices.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use pinion_discovery::From as MachineSource;
use pinion_machine::Bdf;

use super::ReportFormat;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceFormat {
    /// A line for each device, and what stands in its way
    Text,
    /// The same with more columns
    Wide,
    /// One JSON document
    Json,
}

/// `pinion devices` alone shows them; what changes them is a command below it.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  pinion devices
  pinion devices -o wide
  pinion devices -o json | jq -r '.items[] | select(.assignable) | .address'
  pinion devices --from sysfs:gathered
  sudo pinion devices --pods

States: ready (vfio-pci has the whole IOMMU group), free (nothing stands in the way: it only
has to be bound), in use (by the host), blocked."
)]
pub(crate) struct DevicesOptions {
    #[command(subcommand)]
    pub(crate) command: Option<DevicesCommand>,
    #[command(flatten)]
    pub(crate) list: DeviceListOptions,
}

/// What can be done with devices.
#[derive(Debug, Subcommand)]
pub(crate) enum DevicesCommand {
    /// Bind devices to vfio-pci, each with its whole IOMMU group, so that guests can have them
    #[command(after_help = "Examples:
  sudo pinion devices bind 0000:3b:00.0
  sudo pinion devices bind 3b:00.0 5e:00.0

A device that the host uses (a mounted disk, the default route, the console) is refused.")]
    Bind(DeviceAddresses),
    /// Give devices back to the host's drivers, each with its whole IOMMU group
    #[command(after_help = "Examples:
  sudo pinion devices unbind 0000:3b:00.0")]
    Unbind(DeviceAddresses),
    /// Show what the names of devices stand for, and what of it can be given to guests
    #[command(after_help = "Examples:
  pinion devices resources
  pinion devices resources --devices names.yaml -o json

Functions of one name that share an IOMMU group are one device: they can only be given together.")]
    Resources(DeviceResourcesOptions),
}

#[derive(Debug, Args)]
pub(crate) struct DeviceResourcesOptions {
    /// What device names stand for [default: /etc/pinion/devices.yaml]
    #[arg(long, value_name = "FILE")]
    pub(crate) devices: Option<PathBuf>,
    /// Machine to look at: host, xml:FILE, synthetic:TEXT (hwloc) or sysfs:DIR (a gathered tree)
    #[arg(long, value_name = "SOURCE", default_value = "host")]
    pub(crate) from: MachineSource,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) output: ReportFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo pinion device-plugin
  sudo pinion device-plugin --devices names.yaml --listen 0.0.0.0:9181

Offers devices.kubevirt.io/kvm, tun and vhost-net, the way to the node's agent (pinion.dev/agent), and each
name of the file of devices. Containers keep their devices when it ends.")]
pub(crate) struct DevicePluginOptions {
    /// What device names stand for; read again when it changes
    #[arg(long, value_name = "FILE", default_value = pinion_resources::DEFAULT_PATH)]
    pub(crate) devices: PathBuf,
    /// The kubelet's folder of device plugins
    #[arg(long, value_name = "FOLDER", default_value = pinion_device_plugin_daemon::KUBELET_FOLDER)]
    pub(crate) kubelet: PathBuf,
    /// Offer only pinion.dev/agent and what the file of devices names: somebody else offers /dev/kvm, as KubeVirt does
    #[arg(long)]
    pub(crate) only_named: bool,
    /// Write a CDI document there, such as /var/run/cdi, and give devices by it instead of by their nodes
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cdi: Option<PathBuf>,
    /// Address of its pages: /metrics, /healthz, /readyz
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9181")]
    pub(crate) listen: SocketAddr,
    /// Serve no pages
    #[arg(long)]
    pub(crate) no_pages: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeviceAddresses {
    /// PCI addresses, as `pinion devices` shows them
    #[arg(required = true, value_name = "ADDRESS")]
    pub(crate) addresses: Vec<Bdf>,
}

#[derive(Debug, Args)]
pub(crate) struct DeviceListOptions {
    /// Machine to look at: host, xml:FILE, synthetic:TEXT (hwloc) or sysfs:DIR (a gathered tree)
    #[arg(long, value_name = "SOURCE", default_value = "host")]
    pub(crate) from: MachineSource,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = DeviceFormat::Text)]
    pub(crate) output: DeviceFormat,
    /// Show which pod has which device, as the kubelet tells, instead of the machine's devices
    #[arg(long, conflicts_with = "from")]
    pub(crate) pods: bool,
    /// The kubelet's socket for that
    #[arg(long, value_name = "SOCKET", default_value = pinion_pod_resources::POD_RESOURCES, requires = "pods")]
    pub(crate) kubelet: PathBuf,
}
