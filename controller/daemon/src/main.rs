//! `pinion-controller`: `kubevirt.io/v1` on a cluster.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use kube::Client;
use pinion_controller::{Options, Way, run};
use pinion_endpoint::chain;
use pinion_reconcile::pod::LauncherImages;
use tokio::signal::unix::{SignalKind, signal};

/// Serves VirtualMachine, VirtualMachineInstance and VirtualMachineInstanceReplicaSet of kubevirt.io/v1.
///
/// Inside a cluster it finds the API server by its service account; elsewhere by KUBECONFIG or ~/.kube/config.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  pinion-controller --launcher-image pinion.dev/launcher:0.1.0 \\\n    \
        --libvirt-launcher-image pinion.dev/launcher-libvirt:0.1.0"
)]
struct Arguments {
    /// Namespace that it runs in: its Lease and its Secret are there
    #[arg(long, env = "POD_NAMESPACE", default_value = "pinion-system")]
    namespace: String,
    /// What tells this replica from others
    #[arg(long, env = "POD_NAME", default_value_t = default_replica())]
    replica: String,
    /// Image of the launcher of our own virtual machine monitor
    #[arg(long, env = "LAUNCHER_IMAGE", value_name = "IMAGE")]
    launcher_image: String,
    /// Image of the launcher of QEMU, through libvirt
    #[arg(long, env = "LIBVIRT_LAUNCHER_IMAGE", value_name = "IMAGE")]
    libvirt_launcher_image: String,
    /// When nodes pull it: Always, IfNotPresent or Never
    #[arg(long, env = "LAUNCHER_PULL_POLICY", value_name = "POLICY", default_value = "")]
    launcher_pull_policy: String,
    /// Address of its pages: /metrics, /healthz, /readyz
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9182")]
    listen: SocketAddr,
    /// Address of the webhook
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9443")]
    webhook: SocketAddr,
    /// URL by which the API server reaches the webhook, where that is not the Service pinion-webhook of its namespace
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    /// Leave specs unchecked: no webhook
    #[arg(long, conflicts_with_all = ["webhook", "webhook_url"])]
    no_webhook: bool,
    /// How many objects are looked at at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    workers: usize,
}

fn default_replica() -> String {
    format!("process-{}", std::process::id())
}

impl Arguments {
    fn options(self) -> Options {
        let way = match self.webhook_url {
            Some(url) => Way::Url(url),
            None => Way::Service(self.namespace.clone(), "pinion-webhook".to_owned()),
        };
        Options {
            namespace: self.namespace,
            replica: self.replica,
            launchers: LauncherImages { native: self.launcher_image, libvirt: self.libvirt_launcher_image },
            pull_policy: self.launcher_pull_policy,
            pages: Some(self.listen),
            webhook: (!self.no_webhook).then_some((self.webhook, way)),
            workers: self.workers,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let client = match Client::try_default().await {
        Ok(client) => client,
        Err(error) => {
            eprintln!("pinion-controller: Cannot find the API server: {}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    match run(client, arguments.options(), stopped()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pinion-controller: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// SIGTERM or SIGINT.
async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
