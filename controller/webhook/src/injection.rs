//! The bundle of our authorities in the configurations that send API servers to us.
//!
//! Run by every replica as one task for each configuration: whoever is first writes, the others find it done. Only
//! `caBundle` is written, by server-side apply, so that whoever else applies the manifest does not take it away; who
//! overwrites it by force, or replaces the object, has it back at once, since the object is watched.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_stream::StreamExt;

use crate::event::Event;
use crate::review::Hook;
use crate::said::{Said, asked, watched};
use crate::store::Tell;
use crate::tls::Current;

/// Who owns the field.
const OWNER: &str = "pinion-webhook";
/// Attempts while others write the object.
const ATTEMPTS: u32 = 8;
/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);
/// The longest without a look: watches can be deaf.
const LOOK: Duration = Duration::from_secs(600);

/// Why a configuration did not get the bundle.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The API server refused or is not there.
    #[error("Cannot {action} the {kind} {name} to put the bundle of our authorities in")]
    Api {
        /// `read`, `write`, `watch`.
        action: &'static str,
        /// Which kind.
        kind: &'static str,
        /// Which.
        name: String,
        /// What it said, or why it was not reached.
        source: Said,
    },
    /// There is none.
    #[error("There is no {kind} {name}: apply the manifests")]
    Absent {
        /// Which kind.
        kind: &'static str,
        /// Which.
        name: String,
    },
    /// Others wrote each time.
    #[error("The {kind} {name} was written by others {ATTEMPTS} times in a row: end who else writes it")]
    Busy {
        /// Which kind.
        kind: &'static str,
        /// Which.
        name: String,
    },
}

impl InjectError {
    /// A stable code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } => "Refused",
            Self::Absent { .. } => "Absent",
            Self::Busy { .. } => "Busy",
        }
    }
}

/// What an injection did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// It was there already.
    Kept,
    /// It was written.
    Written,
}

impl Hook {
    /// The kind that sends API servers here.
    #[must_use]
    pub const fn configuration(self) -> &'static str {
        match self {
            Self::Validate => "ValidatingWebhookConfiguration",
            Self::Mutate => "MutatingWebhookConfiguration",
        }
    }
}

/// Either of the two kinds.
trait Configuration:
    kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// Its webhooks by name, and where each sends an API server.
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for ValidatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|w| (w.name.as_str(), &w.client_config)).collect()
    }
}

impl Configuration for MutatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|w| (w.name.as_str(), &w.client_config)).collect()
    }
}

/// What is applied where one of the webhooks has another bundle.
fn wanted(configuration: &impl Configuration, hook: Hook, bundle: &str) -> Option<Value> {
    let webhooks = configuration.webhooks();
    let has =
        |c: &WebhookClientConfig| c.ca_bundle.as_ref().is_some_and(|ByteString(b)| b == bundle.as_bytes());
    if webhooks.iter().all(|(_, config)| has(config)) {
        return None;
    }
    let bundle = STANDARD.encode(bundle);
    // All of them: what an owner leaves out, it gives up.
    let each = |(name, _): &(&str, _)| json!({"name": name, "clientConfig": {"caBundle": bundle}});
    let meta = configuration.meta();
    Some(json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": hook.configuration(),
        // With its version: a webhook that somebody takes out just now must not come back.
        "metadata": {"name": meta.name, "resourceVersion": meta.resource_version},
        "webhooks": webhooks.iter().map(each).collect::<Vec<_>>(),
    }))
}

/// Puts the bundle (PEM) into all webhooks of a configuration, where it is not there yet.
///
/// # Errors
/// [`InjectError`].
pub async fn inject(
    client: &kube::Client,
    hook: Hook,
    name: &str,
    bundle: &str,
) -> Result<Injection, InjectError> {
    match hook {
        Hook::Validate => {
            inject_into::<ValidatingWebhookConfiguration>(&Api::all(client.clone()), hook, name, bundle).await
        }
        Hook::Mutate => {
            inject_into::<MutatingWebhookConfiguration>(&Api::all(client.clone()), hook, name, bundle).await
        }
    }
}

async fn inject_into<K: Configuration>(
    api: &Api<K>,
    hook: Hook,
    name: &str,
    bundle: &str,
) -> Result<Injection, InjectError> {
    let kind = hook.configuration();
    for _ in 0..ATTEMPTS {
        let read = api.get_opt(name).await.map_err(|e| failed("read", hook, name, asked(e)))?;
        let configuration = read.ok_or_else(|| InjectError::Absent { kind, name: name.to_owned() })?;
        let Some(wanted) = wanted(&configuration, hook, bundle) else { return Ok(Injection::Kept) };
        match api.patch(name, &PatchParams::apply(OWNER).force(), &Patch::Apply(wanted)).await {
            Ok(_) => return Ok(Injection::Written),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(failed("write", hook, name, asked(error))),
        }
    }
    Err(InjectError::Busy { kind, name: name.to_owned() })
}

/// Keeps the bundle of the moment in a configuration for ever. One that is not there is told once, and waited for.
pub async fn keep_injected(client: kube::Client, hook: Hook, name: String, current: Current, tell: Tell) {
    match hook {
        Hook::Validate => {
            keep::<ValidatingWebhookConfiguration>(Api::all(client), hook, &name, current, tell).await;
        }
        Hook::Mutate => {
            keep::<MutatingWebhookConfiguration>(Api::all(client), hook, &name, current, tell).await;
        }
    }
}

async fn keep<K: Configuration>(api: Api<K>, hook: Hook, name: &str, mut current: Current, tell: Tell) {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = pin!(watcher(api.clone(), only).default_backoff());
    let mut absent = false;
    loop {
        let stored: Option<Arc<_>> = current.borrow_and_update().clone();
        let done = match stored {
            Some(stored) => inject_into(&api, hook, name, &stored.bundle()).await.map(Some),
            None => Ok(None),
        };
        let wait = match done {
            Ok(done) => {
                absent = false;
                if done == Some(Injection::Written) {
                    tell(&Event::Injected { hook, configuration: name.to_owned() });
                }
                LOOK
            }
            Err(error @ InjectError::Absent { .. }) => {
                if !absent {
                    tell(&Event::NotInjected { hook, error });
                }
                absent = true;
                LOOK
            }
            Err(error) => {
                tell(&Event::NotInjected { hook, error });
                AGAIN
            }
        };
        let mut waited = pin!(sleep(wait));
        loop {
            tokio::select! {
                () = &mut waited => break,
                changed = current.changed() => match changed {
                    Ok(()) => break,
                    // Nobody looks after certificates any more: there is nothing left to do.
                    Err(_) => return,
                },
                change = changes.next() => match change {
                    Some(Ok(watcher::Event::Init)) => {}
                    Some(Ok(_)) if wait == LOOK => break,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        let error = failed("watch", hook, name, watched(error));
                        tell(&Event::NotInjected { hook, error });
                    }
                    None => {
                        waited.as_mut().await;
                        break;
                    }
                },
            }
        }
    }
}

fn failed(action: &'static str, hook: Hook, name: &str, source: Said) -> InjectError {
    InjectError::Api { action, kind: hook.configuration(), name: name.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundles: [Option<&str>; 2]) -> ValidatingWebhookConfiguration {
        let webhook = |(number, bundle): (usize, Option<&str>)| {
            let mut config = json!({"url": "https://127.0.0.1:1/validate"});
            if let Some(bundle) = bundle {
                config["caBundle"] = STANDARD.encode(bundle).into();
            }
            json!({
                "name": format!("{number}.pinion.dev"), "clientConfig": config,
                "admissionReviewVersions": ["v1"], "sideEffects": "None",
            })
        };
        let webhooks: Vec<Value> = bundles.into_iter().enumerate().map(webhook).collect();
        let metadata = json!({"name": "pinion", "resourceVersion": "7"});
        serde_json::from_value(json!({"metadata": metadata, "webhooks": webhooks})).unwrap()
    }

    #[test]
    fn only_what_differs_is_applied_and_then_all_of_it() {
        assert_eq!(wanted(&configuration([Some("pem"); 2]), Hook::Validate, "pem"), None);
        for bundles in [[None, Some("pem")], [Some("old"), Some("pem")], [None, None]] {
            let applied = wanted(&configuration(bundles), Hook::Validate, "pem").unwrap();
            assert_eq!(applied["kind"], "ValidatingWebhookConfiguration");
            assert_eq!(applied["metadata"], json!({"name": "pinion", "resourceVersion": "7"}));
            let each =
                |n: usize| json!({"name": format!("{n}.pinion.dev"), "clientConfig": {"caBundle": "cGVt"}});
            assert_eq!(applied["webhooks"], json!([each(0), each(1)]), "nothing but the bundle is owned");
        }
    }
}
