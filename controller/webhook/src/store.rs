//! The Secret that all replicas share.
//!
//! Run by every replica as one task. A replica writes what it read and replaced, and the API server takes it only where
//! nobody wrote in between; whoever comes second reads what the first wrote. So there is one authority, and nobody leads.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_stream::StreamExt;

use crate::certificates::{Decision, IssueError, Stored, Wish, next};
use crate::event::Event;
use crate::said::{Said, asked, watched};

/// Attempts before others that write all the time are told.
const ATTEMPTS: u32 = 8;
/// The longest without a look: clocks are set, and watches can be deaf.
const LOOK: Duration = Duration::from_secs(3600);
/// Between attempts after a failure.
const AGAIN: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
];

/// What time it is.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Who hears of what happens.
pub type Tell = Arc<dyn Fn(&Event) + Send + Sync>;

/// Why certificates could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The API server refused or is not there.
    #[error("Cannot {action} the Secret {secret} with the webhook's certificates")]
    Api {
        /// `read`, `write`, `watch`.
        action: &'static str,
        /// Which.
        secret: String,
        /// What it said, or why it was not reached.
        source: Said,
    },
    /// Others wrote each time.
    #[error("The Secret {secret} was written by others {ATTEMPTS} times in a row: end who else writes it")]
    Busy {
        /// Which.
        secret: String,
    },
    /// Certificates cannot be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// The Secret.
#[derive(Clone, Debug)]
pub struct Store {
    secrets: Api<Secret>,
    namespace: String,
    name: String,
}

/// What is kept now.
#[derive(Debug)]
pub struct Kept {
    /// What.
    pub stored: Stored,
    /// When to look again.
    pub until: Timestamp,
    /// What happened, in order.
    pub events: Vec<Event>,
}

impl Store {
    /// That Secret, which need not exist.
    #[must_use]
    pub fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        let secrets = Api::namespaced(client, namespace);
        Self { secrets, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Reads it, and replaces in it what is due.
    ///
    /// 1. Read it; what is damaged counts as nothing.
    /// 2. Decide. What is kept ends this.
    /// 3. Write what replaces it, if it is still as it was read. If not, begin again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refresh(&self, wish: &Wish, now: Timestamp) -> Result<Kept, StoreError> {
        let mut events = Vec::new();
        for _ in 0..ATTEMPTS {
            let secret = self.secrets.get_opt(&self.name).await.map_err(|e| self.failed("read", asked(e)))?;
            let read = secret.as_ref().and_then(|s| s.data.as_ref()).map(|data| Stored::read(&bytes(data)));
            let (stored, damage) = match read {
                Some(Ok(stored)) => (Some(stored), None),
                Some(Err(error)) => (None, Some(error)),
                None => (None, None),
            };
            let (new, causes) = match (next(stored.as_ref(), now, wish)?, stored) {
                (Decision::Keep { until }, Some(stored)) => return Ok(Kept { stored, until, events }),
                (Decision::Keep { .. }, None) => continue,
                (Decision::Replace { stored, causes }, _) => (*stored, causes),
            };
            if self.write(secret, &new).await? {
                let secret = self.to_string();
                events.extend(damage.map(|error| Event::Damaged { secret: secret.clone(), error }));
                events.push(Event::Replaced { secret, causes });
            }
        }
        Err(StoreError::Busy { secret: self.to_string() })
    }

    /// Whether it was written; otherwise somebody else did.
    async fn write(&self, secret: Option<Secret>, new: &Stored) -> Result<bool, StoreError> {
        let data = || new.data().into_iter().map(|(field, value)| (field, ByteString(value)));
        let post = PostParams::default();
        let done = match secret {
            Some(mut secret) => {
                secret.data.get_or_insert_default().extend(data());
                // It has the version that was read, so that a later one is not lost.
                self.secrets.replace(&self.name, &post, &secret).await
            }
            None => {
                let labels = BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "pinion".to_owned())]);
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    labels: Some(labels),
                    ..ObjectMeta::default()
                };
                let type_ = Some("kubernetes.io/tls".to_owned());
                let secret = Secret { metadata, type_, data: Some(data().collect()), ..Secret::default() };
                self.secrets.create(&post, &secret).await
            }
        };
        match done {
            Ok(_) => Ok(true),
            // It changed, it was made, or it was deleted.
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(false),
            Err(error) => Err(self.failed("write", asked(error))),
        }
    }

    /// Looks after it for ever, and publishes what is kept. `tell` hears of what happens.
    pub async fn keep(
        self,
        wish: Wish,
        clock: Clock,
        publish: watch::Sender<Option<Arc<Stored>>>,
        tell: Tell,
    ) {
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut changes = pin!(watcher(self.secrets.clone(), only).default_backoff());
        let mut failures = 0;
        loop {
            let wait = match self.refresh(&wish, clock()).await {
                Ok(Kept { stored, until, events }) => {
                    failures = 0;
                    events.iter().for_each(|event| tell(event));
                    publish.send_if_modified(|current| {
                        let new = current.as_deref() != Some(&stored);
                        if new {
                            *current = Some(Arc::new(stored));
                        }
                        new
                    });
                    // What is due now was done just now, but for less than a second.
                    Duration::try_from(clock().duration_until(until))
                        .unwrap_or_default()
                        .clamp(AGAIN[0], LOOK)
                }
                Err(error) => {
                    tell(&Event::NotKept { error });
                    failures += 1;
                    AGAIN[usize::min(failures, AGAIN.len()) - 1]
                }
            };
            let mut waited = pin!(sleep(wait));
            loop {
                tokio::select! {
                    () = &mut waited => break,
                    change = changes.next() => match change {
                        Some(Ok(watcher::Event::Init)) => {}
                        Some(Ok(_)) if failures == 0 => break,
                        Some(Ok(_)) => {}
                        Some(Err(error)) => tell(&Event::NotKept { error: self.failed("watch", watched(error)) }),
                        None => {
                            waited.as_mut().await;
                            break;
                        }
                    }
                }
            }
        }
    }

    fn failed(&self, action: &'static str, source: Said) -> StoreError {
        StoreError::Api { action, secret: self.to_string(), source }
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn bytes(data: &BTreeMap<String, ByteString>) -> BTreeMap<String, Vec<u8>> {
    data.iter().map(|(field, value)| (field.clone(), value.0.clone())).collect()
}

#[cfg(test)]
mod tests;
