//! The server: TLS on a socket, so many connections at once, and a time for each step of each.
//!
//! Run as one task of a tokio runtime of several threads. Whoever connects is hostile: anybody in the cluster can. What an
//! API server sends is bounded here; what it says is for the rules.
//!
//! A connection is given up when its next step is late: the handshake, the first request, the rest of a request with its
//! review, and the next request or the reading of the answer. That last time is longer than an API server keeps a
//! connection that it does not use, so that it is never cut off while it asks.

mod answer;
mod body;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use crate::metrics::{Cut, Metrics};
use crate::review::Review;
use crate::store::{Clock, Tell};
use crate::tls::{self, Current};
use answer::Answers;

/// What the head of a request may take.
const HEAD_BYTES: usize = 64 << 10;
const HEADERS: usize = 64;

/// How much, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Reviews at once; more wait.
    pub reviews: usize,
    /// Bytes of one request's body; an API server's objects have up to 3 MiB.
    pub body: usize,
    /// Bytes of all bodies at once.
    pub bodies: usize,
    /// For a handshake, and then for the first request to begin.
    pub first: Duration,
    /// For a request from its head to its answer.
    pub request: Duration,
    /// From an answer to the next request.
    pub idle: Duration,
    /// For what is in progress when the server is to end.
    pub end: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            reviews: 16,
            body: 4 << 20,
            bodies: 64 << 20,
            first: Duration::from_secs(10),
            request: Duration::from_secs(30),
            // Go's clients keep theirs for 90 s.
            idle: Duration::from_secs(120),
            end: Duration::from_secs(10),
        }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("Cannot serve on {address}: give a free address of this host")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// From the operating system.
        source: io::Error,
    },
    /// No ciphers.
    #[error("Cannot set up TLS for the webhook")]
    Tls(#[from] rustls::Error),
}

/// What a server is made of.
#[derive(Clone)]
pub struct Parts {
    /// What it shows.
    pub current: Current,
    /// The rules.
    pub review: Arc<dyn Review>,
    /// How much.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Metrics,
    /// What time it is.
    pub clock: Clock,
    /// Who hears of panics.
    pub tell: Tell,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The server, listening.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    limits: Limits,
    metrics: Metrics,
    answers: Arc<Answers>,
}

impl Server {
    /// Listens. Whoever connects waits until it serves.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn bind(address: SocketAddr, parts: Parts) -> Result<Self, ServerError> {
        let bind = |source| ServerError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let tls = Arc::new(tls::config(parts.current.clone())?);
        let (limits, metrics) = (parts.limits, parts.metrics.clone());
        Ok(Self { listener, address, tls, limits, metrics, answers: Arc::new(Answers::new(parts)) })
    }

    /// Where it listens; the port is the real one where 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is done.
    ///
    /// 1. Nobody is accepted any more.
    /// 2. Connections end after the request that is in progress, or when the time for that is over.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => match Arc::clone(&slots).try_acquire_owned() {
                        Ok(slot) => {
                            let _ = connections.spawn(self.connection(stream, slot, stopped.clone()));
                        }
                        Err(_) => self.metrics.cut(Cut::Full),
                    },
                    // Out of file descriptors, or the client has gone: neither is cured by hurry.
                    Err(_) => sleep(Duration::from_millis(100)).await,
                },
            }
        }
        drop(self.listener);
        let _ = stopping.send(true);
        let all = async { while connections.join_next().await.is_some() {} };
        // What is left goes with the set.
        let _ = timeout(self.limits.end, all).await;
    }

    fn connection(
        &self,
        stream: TcpStream,
        slot: OwnedSemaphorePermit,
        mut stopped: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        let (limits, metrics, answers) = (self.limits, self.metrics.clone(), Arc::clone(&self.answers));
        async move {
            let _slot = slot;
            let _ = stream.set_nodelay(true);
            let stream = match timeout(limits.first, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(_)) => return metrics.cut(Cut::Handshake),
                Err(_) => return metrics.cut(Cut::Slow),
            };
            let step = Arc::new(Step::new(limits));
            let of_service = Arc::clone(&step);
            let service = service_fn(move |request| {
                let (step, answers) = (Arc::clone(&of_service), Arc::clone(&answers));
                async move {
                    step.set(Is::Asked);
                    let response = answers.answer(request).await;
                    step.set(Is::Answered);
                    Ok::<_, Infallible>(response)
                }
            });
            let mut http = http1::Builder::new();
            let http = http.max_buf_size(HEAD_BYTES).max_headers(HEADERS);
            let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
            loop {
                tokio::select! {
                    // A client that breaks off or breaks the rules is not our error.
                    _ = &mut connection => return,
                    late = step.late() => {
                        if late != Is::Answered {
                            metrics.cut(Cut::Slow);
                        }
                        return;
                    }
                    Ok(()) = stopped.changed() => connection.as_mut().graceful_shutdown(),
                }
            }
        }
    }
}

/// What a connection did last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Connected,
    Asked,
    Answered,
}

/// The step that a connection is at, and when the next is due.
#[derive(Debug)]
struct Step {
    limits: Limits,
    is: Mutex<(Is, Instant)>,
}

impl Step {
    fn new(limits: Limits) -> Self {
        Self { limits, is: Mutex::new((Is::Connected, Instant::now() + limits.first)) }
    }

    fn set(&self, is: Is) {
        let time = if is == Is::Asked { self.limits.request } else { self.limits.idle };
        *self.is.lock().unwrap_or_else(PoisonError::into_inner) = (is, Instant::now() + time);
    }

    fn get(&self) -> (Is, Instant) {
        *self.is.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when the next step is late.
    async fn late(&self) -> Is {
        loop {
            let (is, due) = self.get();
            if Instant::now() >= due {
                return is;
            }
            // A step that is made meanwhile may be due earlier.
            sleep_until(due.min(Instant::now() + self.limits.first)).await;
        }
    }
}

#[cfg(test)]
mod tests;
