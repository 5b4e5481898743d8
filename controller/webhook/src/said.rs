//! What an API server said, as the line that a person reads.
//!
//! The library prints such an answer with all its fields, and twice; the message and the code are enough.

use std::error::Error;

use kube::core::Status;
use kube::runtime::watcher;

/// The cause of an error of ours.
pub(crate) type Said = Box<dyn Error + Send + Sync>;

/// Of a request.
pub(crate) fn asked(error: kube::Error) -> Said {
    match error {
        kube::Error::Api(status) => line(&status),
        other => Box::new(other),
    }
}

/// Of a watch.
pub(crate) fn watched(error: watcher::Error) -> Said {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => asked(error),
        WatchError(status) => line(&status),
        other => Box::new(other),
    }
}

fn line(status: &Status) -> Said {
    format!("{} ({})", status.message.trim(), status.code).into()
}
