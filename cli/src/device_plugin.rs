//! `pinion device-plugin`: the kubelet's device plugin.

use std::net::SocketAddr;

use pinion_device_plugin_daemon::{DaemonError, Options, Sources, run as run_daemon};
use pinion_discovery::From as MachineSource;

use crate::arguments::DevicePluginOptions;
use crate::failure::Failure;

/// Runs it until it is told to end.
///
/// # Errors
/// Why it does not run.
pub(crate) fn run(options: DevicePluginOptions) -> Result<(), Failure> {
    let sources =
        Sources { devices: options.devices, machine: MachineSource::Host, shared: !options.only_named };
    let pages = Some(options.listen).filter(|_| !options.no_pages);
    let options = Options { sources, kubelet: options.kubelet, cdi: options.cdi, pages };
    let folder = options.kubelet.display().to_string();
    let ready = |pages: Option<SocketAddr>| {
        let pages = pages.map(|address| format!(", http://{address}/metrics")).unwrap_or_default();
        eprintln!("pinion device-plugin: ready: {folder}{pages}");
    };
    let tell = |line: &str| eprintln!("pinion device-plugin: {line}");
    run_daemon(&options, ready, tell).map_err(|e| match e {
        DaemonError::Folder(_) => Failure::invalid(e),
        e => Failure::failed(e),
    })
}
