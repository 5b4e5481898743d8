//! What is answered to a request.
//!
//! Called on the connection's task. The rules run on a thread of their own, so that what they take holds up nobody else,
//! and a panic of theirs ends one request.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Parts;
use super::body::{BodyError, whole};
use crate::event::Event;
use crate::metrics::Ended;
use crate::review::{self, AdmissionRequest, Hook, Operation, Verdict};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What all connections answer with.
pub(super) struct Answers {
    parts: Parts,
    /// Bytes that bodies may take.
    bodies: Arc<Semaphore>,
    /// Reviews that may run.
    reviews: Arc<Semaphore>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.fmt(f)
    }
}

/// A refusal of the request itself.
struct Wrong {
    status: StatusCode,
    line: String,
    operation: Option<Operation>,
    ended: Ended,
}

impl Wrong {
    fn new(status: StatusCode, line: impl Into<String>) -> Self {
        Self { status, line: line.into(), operation: None, ended: Ended::Malformed }
    }
}

impl Answers {
    pub(super) fn new(parts: Parts) -> Self {
        let bodies = Arc::new(Semaphore::new(parts.limits.bodies));
        let reviews = Arc::new(Semaphore::new(parts.limits.reviews));
        Self { parts, bodies, reviews }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<String> {
        match request.uri().path() {
            "/validate" => self.hook(Hook::Validate, request).await,
            "/mutate" => self.hook(Hook::Mutate, request).await,
            path @ ("/healthz" | "/readyz") => {
                let head = request.method() == Method::HEAD;
                if !head && request.method() != Method::GET {
                    return refused(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD");
                }
                let ready = if path == "/readyz" { self.ready() } else { Ok(()) };
                let (status, line) = match ready {
                    Ok(()) => (StatusCode::OK, "ok".to_owned()),
                    Err(line) => (StatusCode::SERVICE_UNAVAILABLE, line),
                };
                refused(status, if head { "" } else { &line })
            }
            _ => refused(StatusCode::NOT_FOUND, "There are /validate, /mutate, /healthz and /readyz"),
        }
    }

    /// Whether an API server can ask here.
    fn ready(&self) -> Result<(), String> {
        let current = self.parts.current.borrow();
        let Some(stored) = current.as_ref() else { return Err("There is no certificate yet".to_owned()) };
        let (now, serving) = ((self.parts.clock)(), stored.serving());
        if now < serving.from() || serving.until() <= now {
            return Err(format!("The certificate holds from {} to {}", serving.from(), serving.until()));
        }
        Ok(())
    }

    async fn hook(&self, hook: Hook, request: Request<Incoming>) -> Response<String> {
        let began = Instant::now();
        let answered = self.reviewed(hook, request).await;
        let took = began.elapsed();
        match answered {
            Ok((operation, allowed, text)) => {
                let ended = if allowed { Ended::Allowed } else { Ended::Refused };
                self.parts.metrics.request(hook, Some(operation), ended, took);
                response(StatusCode::OK, JSON, text)
            }
            Err(wrong) => {
                self.parts.metrics.request(hook, wrong.operation, wrong.ended, took);
                let mut response = refused(wrong.status, &wrong.line);
                if wrong.status == StatusCode::METHOD_NOT_ALLOWED {
                    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                }
                response
            }
        }
    }

    /// The operation, whether it is allowed, and the text of the answer.
    ///
    /// 1. The head: what cannot be a review is refused before its body is read.
    /// 2. The body, bounded in bytes and time.
    /// 3. A place among those that are reviewed; then it is taken apart and reviewed, on another thread.
    async fn reviewed(
        &self,
        hook: Hook,
        request: Request<Incoming>,
    ) -> Result<(Operation, bool, String), Wrong> {
        head(&request)?;
        let limits = self.parts.limits;
        let late = |_| Wrong::new(StatusCode::REQUEST_TIMEOUT, "The body did not come in time");
        let read = timeout(part(limits.request), whole(request.into_body(), limits.body, &self.bodies));
        let body = read.await.map_err(late)?.map_err(|error| body_wrong(error, limits.body))?;
        let busy = || Wrong {
            ended: Ended::Overloaded,
            ..Wrong::new(StatusCode::SERVICE_UNAVAILABLE, "Too many reviews at once: ask again")
        };
        let place = timeout(part(limits.request), Arc::clone(&self.reviews).acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(busy()) };
        let rules = Arc::clone(&self.parts.review);
        let (sender, request) = tokio::sync::oneshot::channel();
        let reviewing = spawn_blocking(move || {
            let _place = place;
            let request = review::read(&body.bytes)?;
            drop(body);
            let _ = sender.send(request.operation);
            Ok::<_, String>(text(hook, &request, &rules.review(hook, &request)))
        });
        match reviewing.await {
            Ok(Ok((operation, allowed, text))) => Ok((operation, allowed, text)),
            Ok(Err(line)) => Err(Wrong::new(StatusCode::BAD_REQUEST, line)),
            Err(panic) => {
                self.panicked(hook, panic);
                let line = "The review failed for an error of ours: the log of the webhook has it";
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                let operation = request.await.ok();
                Err(Wrong { ended: Ended::Panicked, operation, ..Wrong::new(status, line) })
            }
        }
    }

    fn panicked(&self, hook: Hook, error: tokio::task::JoinError) {
        let said = match error.try_into_panic() {
            Ok(panic) => {
                let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
                said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
            }
            Err(error) => error.to_string(),
        };
        (self.parts.tell)(&Event::Panicked { hook, said });
    }
}

/// Of the time for a request, what reading it or waiting may take, so that the answer to that still gets out.
fn part(whole: Duration) -> Duration {
    whole / 3
}

fn head(request: &Request<Incoming>) -> Result<(), Wrong> {
    if request.method() != Method::POST {
        return Err(Wrong::new(StatusCode::METHOD_NOT_ALLOWED, "Only POST"));
    }
    let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case(JSON) {
        return Err(Wrong::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("Only {JSON}")));
    }
    Ok(())
}

fn body_wrong(error: BodyError, limit: usize) -> Wrong {
    match error {
        BodyError::TooLong => {
            Wrong::new(StatusCode::PAYLOAD_TOO_LARGE, format!("The body has more than {limit} bytes"))
        }
        BodyError::Broken => Wrong::new(StatusCode::BAD_REQUEST, "The body broke off"),
        BodyError::Overloaded => Wrong {
            ended: Ended::Overloaded,
            ..Wrong::new(StatusCode::SERVICE_UNAVAILABLE, "Too many requests at once: ask again")
        },
    }
}

fn text(hook: Hook, request: &AdmissionRequest, verdict: &Verdict) -> (Operation, bool, String) {
    let document = review::answer(hook, request, verdict);
    (request.operation, verdict.refusal.is_none(), document.to_string())
}

/// One line, after which the connection ends: whoever is not an API server gets no place for long.
fn refused(status: StatusCode, line: &str) -> Response<String> {
    let text = if line.is_empty() { String::new() } else { format!("{}\n", line.replace('\n', " ")) };
    let mut response = response(status, TEXT, text);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
