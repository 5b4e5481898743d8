//! All of it together. Called once, by `main`, on its runtime.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use pinion_endpoint::{Endpoint, EndpointError, Page};
use pinion_reconcile::pod::LauncherImages;
use pinion_webhook::{Hook, Limits, Lives, Wish, WishError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::{Api, now};
use crate::clerk::Clerk;
use crate::guard::{self, GuardError};
use crate::kinds::Kind;
use crate::look::Desk;
use crate::metrics::Metrics;
use crate::queue::{Key, Queue};
use crate::registration::{self, Way};
use crate::review::review;
use crate::watch::{Sink, watch};
use crate::world::World;
use crate::{leader, registration::NAME};

/// The Lease, and the Secret of certificates.
const LEASE: &str = "pinion-controller";
const SECRET: &str = "pinion-webhook-certificates";
/// A look that failed is tried again, each time after twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often bookings of instances that are gone are looked for, and nodes that may be chosen again.
const SWEEP_EACH: Duration = Duration::from_secs(30);
/// How often it is looked whether KubeVirt has come.
const GUARD_EACH: Duration = Duration::from_secs(60);

/// What it is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespace that it runs in.
    pub namespace: String,
    /// What tells this replica from others.
    pub replica: String,
    /// Images of the launchers.
    pub launchers: LauncherImages,
    /// When it is pulled; the kubelet's own rule where empty.
    pub pull_policy: String,
    /// Where its pages are served.
    pub pages: Option<SocketAddr>,
    /// Where the webhook listens, and how the API server reaches it; without, nobody looks at specs before they are stored.
    pub webhook: Option<(SocketAddr, Way)>,
    /// How many objects are looked at at a time.
    pub workers: usize,
}

/// Why it ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// This cluster is not ours to serve.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// Its pages.
    #[error("Cannot serve pages")]
    Pages(#[from] EndpointError),
    /// Metrics.
    #[error("Cannot set up metrics")]
    Metrics(#[from] prometheus::Error),
    /// The names of the webhook's certificate.
    #[error("Cannot set up the webhook")]
    Webhook(#[from] WishError),
}

/// Runs until `stop` is done.
///
/// # Errors
/// [`RunError`]. An API server that is not there is none: it is waited for.
pub async fn run(client: Client, options: Options, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let metrics = Metrics::new()?;
    let api = Api::new(client.clone(), metrics.clone(), &options.replica);
    let (seen, all_seen) = watch::channel(BTreeSet::new());
    let pages = options.pages.map(|address| pages(address, &metrics, all_seen.clone())).transpose()?;
    if let Some(pages) = &pages {
        tracing::info!("pages are at http://{}", pages.address());
    }
    tokio::pin!(stop);
    // Only the first answer counts: an API server that is not there yet is waited for.
    loop {
        match guard::check(&api).await {
            Ok(()) => break,
            Err(GuardError::Request(error)) => tracing::warn!("{error}"),
            Err(GuardError::Missing(kind)) => tracing::warn!("{}", GuardError::Missing(kind)),
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = &mut stop => return Ok(()),
        }
    }
    let sink = Sink {
        world: Arc::new(World::default()),
        clerk: Arc::new(Clerk::default()),
        queue: Arc::new(Queue::default()),
        metrics: metrics.clone(),
    };
    // They end with the set.
    let mut tasks = JoinSet::new();
    let seen = Arc::new(seen);
    for kind in Kind::WATCHED {
        let _ = tasks.spawn(watch(client.clone(), kind, sink.clone(), Arc::clone(&seen)));
    }
    let (leads, lead) = watch::channel(false);
    let lease = (options.namespace.clone(), LEASE.to_owned());
    let _ = tasks.spawn(leader::lead(api.clone(), lease, options.replica.clone(), leads));
    let world = Arc::clone(&sink.world);
    let desk = Desk {
        world: sink.world,
        clerk: sink.clerk,
        queue: sink.queue,
        api: api.clone(),
        metrics: metrics.clone(),
        launcher: (options.launchers.clone(), options.pull_policy.clone()),
    };
    for _ in 0..options.workers.max(1) {
        let _ = tasks.spawn(work(desk.clone(), lead.clone(), all_seen.clone()));
    }
    let _ = tasks.spawn(sweep(desk.clone(), lead.clone(), all_seen));
    let _ = tasks.spawn(count_leader(desk, lead));
    if let Some((address, way)) = &options.webhook {
        admit(&mut tasks, (client, api.clone(), world), &options, (*address, way.clone()), metrics)?;
    }
    let ended = tokio::select! {
        () = &mut stop => Ok(()),
        error = stays_ours(&api) => Err(error.into()),
    };
    tasks.shutdown().await;
    leader::resign(&api, (&options.namespace, LEASE), &options.replica).await;
    ended
}

/// The webhook: every replica answers.
fn admit(
    tasks: &mut JoinSet<()>,
    (client, api, world): (Client, Api, Arc<World>),
    options: &Options,
    (address, way): (SocketAddr, Way),
    metrics: Metrics,
) -> Result<(), RunError> {
    let names = match &way {
        Way::Service(namespace, name) => {
            vec![format!("{name}.{namespace}.svc"), format!("{name}.{namespace}")]
        }
        Way::Url(url) => vec![host_of(url).to_owned()],
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let wish = Wish::new(&names, Lives::default())?;
    let counted = pinion_webhook::Metrics::new();
    counted.register(metrics.registry())?;
    let hooks = pinion_webhook::Options {
        address,
        namespace: options.namespace.clone(),
        secret: SECRET.to_owned(),
        wish,
        configurations: vec![(Hook::Validate, NAME.to_owned()), (Hook::Mutate, NAME.to_owned())],
        limits: Limits::default(),
    };
    let tell: pinion_webhook::Tell = Arc::new(|event: &pinion_webhook::Event| tracing::info!("{event}"));
    let _ = tasks.spawn(async move {
        let ready = |address| tracing::info!("the webhook listens on {address}");
        let never = std::future::pending();
        let done = pinion_webhook::run(
            client,
            hooks,
            Arc::new(move |hook, request: &pinion_webhook::AdmissionRequest| review(&world, hook, request)),
            (counted, Arc::new(now), tell),
            ready,
            never,
        );
        if let Err(error) = done.await {
            tracing::error!("the webhook has ended: {}", pinion_endpoint::chain(&error));
        }
    });
    let _ = tasks.spawn(async move {
        while let Err(error) = registration::register(&api, &way).await {
            tracing::warn!("the webhook cannot be registered: {error}");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    });
    Ok(())
}

/// `10.0.0.1` of `https://10.0.0.1:9443`.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// Looks at what there is to look at, while this replica leads and has seen everything.
async fn work(desk: Desk, mut lead: watch::Receiver<bool>, mut seen: watch::Receiver<BTreeSet<Kind>>) {
    let mut failures: std::collections::HashMap<Key, u32> = std::collections::HashMap::new();
    if seen.wait_for(|seen| seen.len() == Kind::WATCHED.len()).await.is_err() {
        return;
    }
    loop {
        if lead.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        let key = desk.queue.take().await;
        if !*lead.borrow() {
            // Somebody else looks at it; it is looked at here when this replica leads again.
            desk.queue.add(key.clone(), Duration::ZERO);
            desk.queue.done(&key);
            continue;
        }
        let began = std::time::Instant::now();
        let done = desk.look(&key).await;
        desk.metrics
            .look_seconds
            .with_label_values(&[key.kind.plural()])
            .observe(began.elapsed().as_secs_f64());
        desk.metrics.last_look.set(now().as_millisecond() as f64 / 1000.0);
        let outcome = if done.is_ok() { "done" } else { "failed" };
        desk.metrics.looks.with_label_values(&[key.kind.plural(), outcome]).inc();
        match done {
            Ok(()) => drop(failures.remove(&key)),
            Err(error) => {
                let count = failures.entry(key.clone()).or_default();
                *count = count.saturating_add(1);
                let pause =
                    FIRST_PAUSE.saturating_mul(2u32.saturating_pow((*count).min(16))).min(LONGEST_PAUSE);
                tracing::warn!("{} {}/{}: {error}", key.kind.name(), key.namespace, key.name);
                desk.queue.add(key.clone(), pause);
            }
        }
        desk.queue.done(&key);
    }
}

/// Gives back what is booked for instances that are gone: whoever was to do that was killed.
async fn sweep(desk: Desk, lead: watch::Receiver<bool>, mut seen: watch::Receiver<BTreeSet<Kind>>) {
    if seen.wait_for(|seen| seen.len() == Kind::WATCHED.len()).await.is_err() {
        return;
    }
    loop {
        tokio::time::sleep(SWEEP_EACH).await;
        if !*lead.borrow() {
            continue;
        }
        if desk.clerk.is_freed() {
            desk.wake_waiting();
        }
        for uid in desk.clerk.stray(&desk.world.instance_uids()) {
            tracing::warn!("a booking of instance {uid}, which is gone, is given back");
            if let Err(error) = desk.clerk.unbook(&desk.api, &uid).await {
                tracing::warn!("{error}");
            }
            desk.wake_waiting();
        }
    }
}

async fn count_leader(desk: Desk, mut lead: watch::Receiver<bool>) {
    loop {
        let leads = *lead.borrow_and_update();
        desk.metrics.leader.set(i64::from(leads));
        tracing::info!("this replica {}", if leads { "acts" } else { "stands by" });
        if lead.changed().await.is_err() {
            return;
        }
    }
}

/// Until this cluster is not ours to serve any more.
async fn stays_ours(api: &Api) -> GuardError {
    loop {
        tokio::time::sleep(GUARD_EACH).await;
        match guard::check(api).await {
            Ok(()) | Err(GuardError::Request(_) | GuardError::Missing(_)) => {}
            Err(error) => return error,
        }
    }
}

fn pages(
    address: SocketAddr,
    metrics: &Metrics,
    seen: watch::Receiver<BTreeSet<Kind>>,
) -> Result<Endpoint, EndpointError> {
    let metrics = metrics.clone();
    let answer = move |path: &str| match path {
        "/metrics" => metrics.text().map(|text| Page::new(Page::METRICS, text)),
        "/healthz" => Some(Page::new(Page::TEXT, "ok\n".to_owned())),
        "/readyz" => Some(readiness(&seen.borrow())),
        _ => None,
    };
    Endpoint::open(address, || (), answer)
}

fn readiness(seen: &BTreeSet<Kind>) -> Page {
    let missing: Vec<&str> =
        Kind::WATCHED.into_iter().filter(|kind| !seen.contains(kind)).map(Kind::plural).collect();
    if missing.is_empty() {
        return Page::new(Page::TEXT, "ok\n".to_owned());
    }
    let text = format!("Not seen yet: {}\n", missing.join(", "));
    Page { healthy: false, ..Page::new(Page::TEXT, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhooks_certificate_is_for_its_address() {
        for (url, host) in [
            ("https://127.0.0.1:9443", "127.0.0.1"),
            ("https://host.example/x", "host.example"),
            ("https://[::1]:9443", "::1"),
            ("host", "host"),
        ] {
            assert_eq!(host_of(url), host);
        }
    }
}
