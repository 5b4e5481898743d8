//! The server that an API server asks for admission, and the certificates for it.
//!
//! The rules are given: a [`Review`]. [`run`] does all of it, on a tokio runtime of several threads, in every replica:
//!
//! - [`Store`]: our own authorities and the serving certificate, in a Secret that all replicas share, replaced in time;
//! - [`keep_injected`]: the bundle of our authorities in the configurations that send API servers here;
//! - [`Server`]: `/validate`, `/mutate`, `/healthz`, `/readyz`.
//!
//! It logs nothing itself: [`Event`]s are told. It knows no rule, and no kind but a Secret and the two configurations.

#![forbid(unsafe_code)]

mod certificates;
mod event;
mod injection;
mod metrics;
mod review;
mod run;
mod said;
mod server;
mod store;
mod tls;

pub use certificates::{
    Authority, Cause, DamageError, Decision, IssueError, Lives, Serving, Stored, Wish, WishError, next,
};
pub use event::Event;
pub use injection::{InjectError, Injection, inject, keep_injected};
pub use metrics::{Metrics, metrics_page};
pub use review::{
    AdmissionRequest, FieldCause, Hook, Kind, Operation, Refusal, Resource, Review, User, Verdict,
};
pub use run::{Options, run};
pub use server::{Limits, Parts, Server, ServerError};
pub use store::{Clock, Kept, Store, StoreError, Tell};
pub use tls::Current;
