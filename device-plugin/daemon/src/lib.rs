//! The device plugin as it runs on a node: what the inventory says goes to the kubelet, to metrics and to the log.
//!
//! [`run`] is called once and keeps its thread. It holds nothing that a container needs: containers keep their devices
//! when it ends, and it finds all again when it starts.

#![forbid(unsafe_code)]

mod cdi;
mod journal;
mod metrics;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use pinion_endpoint::{Endpoint, EndpointError, Page};
use pinion_inventory::{Inventory, News};
use pinion_kubelet::{Event, Folder, FolderError, serve};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use cdi::CdiError;
use cdi::CdiFile;
use journal::Journal;
use metrics::Metrics;
pub use metrics::metrics_page;
pub use pinion_inventory::Sources;
pub use pinion_kubelet::DEFAULT_FOLDER as KUBELET_FOLDER;

/// What it is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is offered.
    pub sources: Sources,
    /// The kubelet's folder of device plugins.
    pub kubelet: PathBuf,
    /// The folder where container runtimes look for CDI documents, if devices are to be given by one.
    pub cdi: Option<PathBuf>,
    /// Where its pages are served: `/metrics`, `/healthz`, `/readyz`.
    pub pages: Option<SocketAddr>,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// There is no folder to serve in.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Its pages.
    #[error(transparent)]
    Pages(#[from] EndpointError),
    /// The document of devices.
    #[error(transparent)]
    Cdi(#[from] CdiError),
    /// No thread, no event loop, no signals.
    #[error("Cannot start the device plugin's event loop")]
    Start(#[source] io::Error),
}

/// Runs until it is told to end by SIGTERM or SIGINT; then its sockets are gone. `ready` is told where its pages are, `tell`
/// each line for the log.
///
/// # Errors
/// [`DaemonError`]. A file of devices that is wrong is none: it is told, and `/dev/kvm` is offered all the same.
pub fn run(
    options: &Options,
    ready: impl FnOnce(Option<SocketAddr>),
    tell: impl Fn(&str) + Send + Sync + 'static,
) -> Result<(), DaemonError> {
    let folder = Folder::watch(&options.kubelet)?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(DaemonError::Start)?;
    let metrics = Arc::new(Metrics::new());
    let journal = Arc::new(Journal::new(tell));
    let pages = options.pages.map(|address| pages(address, Arc::clone(&metrics))).transpose()?;
    let mut inventory = Inventory::new(options.sources.clone());
    let news = inventory.read();
    journal.news(&news);
    metrics.inventory(&inventory, &news);
    let cdi = options.cdi.as_deref().map(CdiFile::below);
    if let Some(cdi) = &cdi {
        cdi.write(&inventory.catalogue())?;
    }
    let by_cdi = cdi.is_some();
    let (sender, catalogue) = watch::channel(inventory.catalogue());
    let told = (Arc::clone(&metrics), Arc::clone(&journal));
    let keep = move |inventory: &Inventory, news: &[News]| {
        told.0.inventory(inventory, news);
        told.1.news(news);
        if let Some(Err(error)) = cdi.as_ref().map(|cdi| cdi.write(&inventory.catalogue())) {
            told.1.error(&error);
        }
        sender.send(inventory.catalogue()).is_ok()
    };
    inventory.keep(keep).map_err(DaemonError::Start)?;
    let event = Arc::new(move |event: &Event| {
        metrics.kubelet(event);
        journal.kubelet(event);
    });
    ready(pages.as_ref().map(Endpoint::address));
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Start)?;
        tokio::select! {
            () = serve(folder, catalogue, event, by_cdi) => Ok(()),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

fn pages(address: SocketAddr, metrics: Arc<Metrics>) -> Result<Endpoint, EndpointError> {
    let answer = move |path: &str| match path {
        "/metrics" => metrics.text().map(|text| Page::new(Page::METRICS, text)),
        "/healthz" => Some(Page::new(Page::TEXT, "ok\n".to_owned())),
        "/readyz" => Some(match metrics.unknown() {
            names if names.is_empty() => Page::new(Page::TEXT, "ok\n".to_owned()),
            names => {
                let text = format!("The kubelet does not know of {}\n", names.join(", "));
                Page { healthy: false, ..Page::new(Page::TEXT, text) }
            }
        }),
        _ => None,
    };
    Endpoint::open(address, || (), answer)
}
