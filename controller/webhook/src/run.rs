//! All of it together.
//!
//! Called once, by the controller, on its runtime.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::certificates::Wish;
use crate::event::Event;
use crate::injection::keep_injected;
use crate::metrics::Metrics;
use crate::review::{Hook, Review};
use crate::server::{Limits, Parts, Server, ServerError};
use crate::store::{Clock, Store, Tell};

/// What it is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub address: SocketAddr,
    /// The namespace of the Secret.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// What certificates are wanted.
    pub wish: Wish,
    /// The configurations that get the bundle, with their kind.
    pub configurations: Vec<(Hook, String)>,
    /// How much.
    pub limits: Limits,
}

/// Runs until `stop` is done; then what is in progress is finished. `ready` is told where it listens, `tell` of what
/// happens, which `metrics` count too.
///
/// # Errors
/// [`ServerError`]. An API server that is not there or refuses is none: it is told, and tried again.
pub async fn run(
    client: kube::Client,
    options: Options,
    review: Arc<dyn Review>,
    (metrics, clock, tell): (Metrics, Clock, Tell),
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let (publish, current) = watch::channel(None);
    let counted = metrics.clone();
    let tell: Tell = Arc::new(move |event: &Event| {
        counted.event(event);
        tell(event);
    });
    let parts = Parts {
        current: current.clone(),
        review,
        limits: options.limits,
        metrics: metrics.clone(),
        clock: Arc::clone(&clock),
        tell: Arc::clone(&tell),
    };
    let server = Server::bind(options.address, parts).await?;
    ready(server.address());
    // They end with the set.
    let mut tasks = JoinSet::new();
    let store = Store::new(client.clone(), &options.namespace, &options.secret);
    let _ = tasks.spawn(store.keep(options.wish, clock, publish, Arc::clone(&tell)));
    for (hook, name) in options.configurations {
        let _ = tasks.spawn(keep_injected(client.clone(), hook, name, current.clone(), Arc::clone(&tell)));
    }
    let _ = tasks.spawn(count(current, metrics));
    server.serve(stop).await;
    Ok(())
}

/// Shows when what is kept ends.
async fn count(mut current: crate::tls::Current, metrics: Metrics) {
    loop {
        if let Some(stored) = current.borrow_and_update().as_deref() {
            metrics.certificates(stored);
        }
        if current.changed().await.is_err() {
            return;
        }
    }
}
