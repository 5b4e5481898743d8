//! Bodies of requests, each bounded, and all of them together.
//!
//! Called for one request at a time on its connection's task. What a body takes is given back when it goes.

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is longer than one may be.
    TooLong,
    /// Others take all that there is.
    Overloaded,
    /// The client broke off, or broke the rules.
    Broken,
}

/// A whole body.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    /// Its part of what all may take.
    _taken: Vec<OwnedSemaphorePermit>,
}

/// Reads a body of up to so many bytes, out of `budget` for all.
pub(super) async fn whole<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    limit: usize,
    budget: &Arc<Semaphore>,
) -> Result<Whole, BodyError> {
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(BodyError::TooLong);
    }
    let mut bytes = Vec::new();
    let mut taken: Vec<OwnedSemaphorePermit> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(BodyError::Broken) };
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len().saturating_add(data.len()) > limit {
            return Err(BodyError::TooLong);
        }
        let count = u32::try_from(data.len()).map_err(|_| BodyError::TooLong)?;
        let permit = Arc::clone(budget).try_acquire_many_owned(count).map_err(|_| BodyError::Overloaded)?;
        match taken.first_mut() {
            Some(first) => first.merge(permit),
            None => taken.push(permit),
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Whole { bytes, _taken: taken })
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_body_takes_its_part_and_gives_it_back() {
        let budget = Arc::new(Semaphore::new(10));
        let read = |text: &'static str| {
            let runtime = Builder::new_current_thread().build().unwrap();
            runtime.block_on(whole(Full::new(Bytes::from(text)), 8, &budget))
        };
        assert_eq!(read("123456789").unwrap_err(), BodyError::TooLong);
        let first = read("12345678").unwrap();
        assert_eq!(first.bytes, b"12345678");
        assert_eq!(read("123").unwrap_err(), BodyError::Overloaded);
        drop(first);
        assert_eq!(read("123").unwrap().bytes, b"123");
        assert_eq!(budget.available_permits(), 10);
    }
}
