//! Everything that the controller writes to the API server, each request counted.
//!
//! Called by the workers. What is already so is no error: an object that exists, or is gone, when it is to.

use std::error::Error as _;

use jiff::Timestamp;
use kube::Client;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::runtime::events::{Event as Told, EventType, Recorder, Reporter};
use pinion_reconcile::{Event, MANAGER, Meta};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::metrics::Metrics;

/// What the API server answers where somebody was quicker.
const CONFLICT: u16 = 409;
const NOT_FOUND: u16 = 404;
/// A `test` of a JSON patch has failed, or the object is not valid.
const UNPROCESSABLE: u16 = 422;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The API server refused it.
    #[error("cannot {verb} {what}: the API server says: {message}")]
    Refused {
        /// What was to be done.
        verb: &'static str,
        /// With what.
        what: String,
        /// What it says.
        message: String,
        /// Its code.
        code: u16,
        /// Its word for it.
        reason: String,
    },
    /// It was not asked, or did not answer.
    #[error("cannot {verb} {what}: {cause}")]
    Unanswered {
        /// What was to be done.
        verb: &'static str,
        /// With what.
        what: String,
        /// Why.
        cause: String,
    },
    /// Other controllers have booked the places that were found, one after the other.
    #[error("cannot book a place: others were quicker {attempts} times; it is tried again")]
    Outrun {
        /// How often.
        attempts: usize,
    },
    /// Its answer is no JSON of ours.
    #[error("{what}: the API server's answer cannot be read")]
    Unreadable {
        /// Of what.
        what: String,
        /// Why not.
        source: serde_json::Error,
    },
}

impl RequestError {
    fn of(verb: &'static str, kind: Kind, name: &str, error: kube::Error) -> Self {
        let what = format!("{} {name:?}", kind.name());
        match error {
            kube::Error::Api(status) => {
                let Status { message, code, reason, .. } = *status;
                Self::Refused { verb, what, message, code, reason }
            }
            other => {
                let cause = other.source().map_or_else(|| other.to_string(), pinion_endpoint::chain);
                Self::Unanswered { verb, what, cause }
            }
        }
    }

    const fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Unanswered { .. } | Self::Outrun { .. } | Self::Unreadable { .. } => None,
        }
    }

    /// Whether somebody was quicker: what was seen is not so any more.
    #[must_use]
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.code(), Some(CONFLICT | UNPROCESSABLE))
    }

    /// Whether it is not there.
    #[must_use]
    pub(crate) fn is_absent(&self) -> bool {
        self.code() == Some(NOT_FOUND)
    }
}

/// The API server, for writing.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    metrics: Metrics,
    recorder: Recorder,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// By a client, as this replica.
    #[must_use]
    pub(crate) fn new(client: Client, metrics: Metrics, replica: &str) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(replica.to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, metrics, recorder }
    }

    /// The client, for reading.
    #[must_use]
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    fn answer<T>(
        &self,
        (verb, kind, name): (&'static str, Kind, &str),
        answer: Result<T, kube::Error>,
    ) -> Result<T, RequestError> {
        self.metrics.request(kind, verb, answer.is_ok());
        answer.map_err(|error| RequestError::of(verb, kind, name, error))
    }

    /// Makes an object; one of its name that is there already is left, and told.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(crate) async fn create(&self, kind: Kind, object: &Value) -> Result<Created, RequestError> {
        let meta = Meta::of(object);
        let what = || format!("{} {:?}", kind.name(), meta.name);
        let typed: DynamicObject = serde_json::from_value(object.clone())
            .map_err(|source| RequestError::Unreadable { what: what(), source })?;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let answer = kind.of(&self.client, &meta.namespace).create(&params, &typed).await;
        match self.answer(("create", kind, &meta.name), answer) {
            Ok(made) => Ok(Created::Made(Box::new(value(&made, what)?))),
            Err(RequestError::Refused { reason, .. }) if reason == "AlreadyExists" => Ok(Created::WasThere),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object of that identity.
    ///
    /// # Errors
    /// [`RequestError`]; none where it is gone, or another has its name.
    pub(crate) async fn delete(&self, kind: Kind, meta: &Meta) -> Result<(), RequestError> {
        let preconditions = Preconditions { uid: Some(meta.uid.clone()), ..Preconditions::default() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let answer = kind.of(&self.client, &meta.namespace).delete(&meta.name, &params).await;
        match self.answer(("delete", kind, &meta.name), answer.map(drop)) {
            Err(error) if error.is_absent() || error.is_conflict() => Ok(()),
            done => done,
        }
    }

    /// Applies a status, by server-side apply; with `whole`, the kind has no status subresource.
    ///
    /// # Errors
    /// [`RequestError`]; none where the object is gone: its identity is in the patch.
    pub(crate) async fn apply(
        &self,
        kind: Kind,
        meta: &Meta,
        patch: &Value,
        whole: bool,
    ) -> Result<(), RequestError> {
        let api = kind.of(&self.client, &meta.namespace);
        let params = PatchParams::apply(MANAGER).force();
        let answer = if whole {
            api.patch(&meta.name, &params, &Patch::Apply(patch)).await
        } else {
            api.patch_status(&meta.name, &params, &Patch::Apply(patch)).await
        };
        match self.answer(("apply", kind, &meta.name), answer.map(drop)) {
            Err(error) if error.is_absent() || error.code() == Some(CONFLICT) => Ok(()),
            done => done,
        }
    }

    /// Takes a finalizer off an object of that identity.
    ///
    /// # Errors
    /// [`RequestError`]; none where the object or the finalizer is gone. Where others have changed the list meanwhile, it is
    /// asked again after the next look.
    pub(crate) async fn drop_finalizer(
        &self,
        kind: Kind,
        meta: &Meta,
        finalizer: &str,
    ) -> Result<(), RequestError> {
        let Some(index) = meta.finalizers.iter().position(|name| name == finalizer) else { return Ok(()) };
        let path = format!("/metadata/finalizers/{index}");
        let steps = json!([
            {"op": "test", "path": "/metadata/uid", "value": meta.uid},
            {"op": "test", "path": path, "value": finalizer},
            {"op": "remove", "path": path},
        ]);
        match self.patch(kind, meta, steps).await {
            Err(error) if error.is_absent() => Ok(()),
            done => done.map(drop),
        }
    }

    /// Changes an object by a JSON patch (RFC 6902), and returns what it is then.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(crate) async fn patch(&self, kind: Kind, meta: &Meta, steps: Value) -> Result<Value, RequestError> {
        let what = || format!("{} {:?}", kind.name(), meta.name);
        let steps = serde_json::from_value(steps)
            .map_err(|source| RequestError::Unreadable { what: what(), source })?;
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Json::<()>(steps);
        let answer = kind.of(&self.client, &meta.namespace).patch(&meta.name, &params, &patch).await;
        let object = self.answer(("patch", kind, &meta.name), answer)?;
        value(&object, what)
    }

    /// An object as it is now.
    ///
    /// # Errors
    /// [`RequestError`]; [`RequestError::is_absent`] where there is none.
    pub(crate) async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Value, RequestError> {
        let answer = kind.of(&self.client, namespace).get(name).await;
        let object = answer.map_err(|error| RequestError::of("read", kind, name, error))?;
        value(&object, || format!("{} {name:?}", kind.name()))
    }

    /// Tells events of an object. One that cannot be told is lost.
    pub(crate) async fn tell(&self, kind: Kind, meta: &Meta, events: &[Event]) {
        for event in events {
            let regarding = k8s_openapi::api::core::v1::ObjectReference {
                api_version: Some(kind.version()),
                kind: Some(kind.name().to_owned()),
                name: Some(meta.name.clone()),
                namespace: Some(meta.namespace.clone()).filter(|name| !name.is_empty()),
                uid: Some(meta.uid.clone()),
                ..Default::default()
            };
            let told = Told {
                type_: if event.warning { EventType::Warning } else { EventType::Normal },
                reason: event.reason.to_owned(),
                // Source: `k8s.io/api/events/v1`: at most 1 KiB.
                note: Some(event.message.chars().take(1000).collect()),
                action: event.reason.to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&told, &regarding).await {
                tracing::debug!("event {} of {}: {error}", event.reason, meta.full_name());
            }
        }
    }
}

/// What became of an object that was to be made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Created {
    /// It was made.
    Made(Box<Value>),
    /// There was one of its name.
    WasThere,
}

/// An object as JSON.
///
/// # Errors
/// [`RequestError::Unreadable`].
pub(crate) fn value(object: &DynamicObject, what: impl FnOnce() -> String) -> Result<Value, RequestError> {
    serde_json::to_value(object).map_err(|source| RequestError::Unreadable { what: what(), source })
}

/// Now, by this machine's clock.
#[must_use]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
