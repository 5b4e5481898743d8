//! The device plugin's side of the kubelet's gRPC: one service for each resource, each on a socket of its own, which is made
//! known to the kubelet again whenever that has forgotten it.
//!
//! [`serve`] is called once, on the plugin's only thread; what is offered comes by a channel, and is decided in
//! `pinion-device-plugin`. It must never look at the host's devices itself.

#![forbid(unsafe_code)]

pub mod api;
mod folder;
mod life;
mod plugin;
mod registration;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pinion_device_plugin::Catalogue;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use folder::{Folder, FolderError};
pub use registration::RegisterError;

/// Where the kubelet looks for device plugins.
pub const DEFAULT_FOLDER: &str = "/var/lib/kubelet/device-plugins";

/// Something that operators and metrics are told of.
#[derive(Debug)]
pub enum Event {
    /// The kubelet knows of a resource.
    Registered {
        /// The resource.
        resource: String,
    },
    /// It does not, and will be asked again.
    NotRegistered {
        /// The resource.
        resource: String,
        /// Why not.
        error: RegisterError,
    },
    /// The kubelet has started anew, or somebody has taken the socket away: all is done once more.
    Forgotten {
        /// The resource.
        resource: String,
    },
    /// The kubelet has asked something.
    Answered {
        /// The resource.
        resource: String,
        /// What.
        call: Call,
        /// How long the answer took.
        took: Duration,
        /// Why it was refused, if it was.
        refused: Option<String>,
    },
    /// The socket of a resource cannot be made; it will be tried again.
    NoSocket {
        /// The socket.
        path: PathBuf,
        /// From the operating system.
        error: std::io::Error,
    },
}

/// What the kubelet asks for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What a container gets that was given some devices.
    Allocate,
    /// Which devices are best given together.
    GetPreferredAllocation,
}

impl Call {
    /// As the API names it: a label of metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allocate => "Allocate",
            Self::GetPreferredAllocation => "GetPreferredAllocation",
        }
    }
}

/// Who is told.
pub type Tell = Arc<dyn Fn(&Event) + Send + Sync>;

/// A task that ends with this.
#[derive(Debug)]
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves every resource of the catalogue, as it changes, until the catalogue's sender is gone. A resource that leaves the
/// catalogue is given up, with its socket. `by_cdi` says that devices are known to the container runtime by their names, so
/// that their nodes need not be given.
pub async fn serve(folder: Folder, mut catalogue: watch::Receiver<Arc<Catalogue>>, tell: Tell, by_cdi: bool) {
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    loop {
        let now = Arc::clone(&catalogue.borrow_and_update());
        running.retain(|name, _| now.names().any(|n| n == name));
        for name in now.names().filter(|n| !running.contains_key(*n)).collect::<Vec<_>>() {
            let told = (Arc::clone(&tell), by_cdi);
            let life = life::live(name.to_owned(), folder.clone(), catalogue.clone(), told);
            running.insert(name.to_owned(), Running(tokio::spawn(life)));
        }
        if catalogue.changed().await.is_err() {
            return;
        }
    }
}
