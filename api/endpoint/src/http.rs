//! Pages over HTTP, on one thread.
//!
//! Whoever connects is hostile: a bounded number of connections, a bounded time for each,
//! requests of a bounded size, and nothing but GET and HEAD.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};

/// Connections served at once; more wait.
const CONNECTIONS: usize = 8;
/// Time for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Time for a connection, whatever is sent over it.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Bytes that a connection may buffer.
const BUFFER_BYTES: usize = 16 << 10;

/// Why the endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address cannot be listened on.
    #[error("Cannot serve on {address}: give a free address of this host")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// From the operating system.
        source: io::Error,
    },
    /// The thread cannot be made.
    #[error("Cannot make the thread that serves metrics")]
    Thread(#[source] io::Error),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Whether all is well; otherwise the status is 503.
    pub healthy: bool,
    /// Media type.
    pub kind: &'static str,
    /// The text.
    pub text: String,
}

impl Page {
    /// Prometheus text.
    pub const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
    /// Plain text.
    pub const TEXT: &str = "text/plain; charset=utf-8";

    /// A page when all is well.
    #[must_use]
    pub const fn new(kind: &'static str, text: String) -> Self {
        Self { healthy: true, kind, text }
    }
}

/// The endpoint; dropping it closes it and ends its thread.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Endpoint {
    /// Serves what `pages` answers for a path; `None` is no such page. The thread inherits the caller's CPUs and
    /// blocked signals, and calls `born` first.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn open(
        address: SocketAddr,
        born: impl FnOnce() + Send + 'static,
        pages: impl Fn(&str) -> Option<Page> + Send + Sync + 'static,
    ) -> Result<Self, EndpointError> {
        let bind = |source| EndpointError::Bind { address, source };
        let listener = TcpListener::bind(address).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(EndpointError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("metrics".into())
            .stack_size(256 << 10)
            .spawn(move || {
                born();
                serve(&runtime, listener, Arc::new(pages), stopped);
            })
            .map_err(EndpointError::Thread)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens; the port is the real one where 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // The thread waits for the sender to go.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It cannot be helped that it panicked, and it holds nothing of the guest.
            let _ = thread.join();
        }
    }
}

type Pages = dyn Fn(&str) -> Option<Page> + Send + Sync;

fn serve(
    runtime: &Runtime,
    listener: TcpListener,
    pages: Arc<Pages>,
    stopped: oneshot::Receiver<Infallible>,
) {
    let tasks = tokio::task::LocalSet::new();
    runtime.block_on(tasks.run_until(async move {
        let accepting = tokio::task::spawn_local(accept(listener, pages));
        // Ends with an error once the endpoint is dropped.
        let _ = stopped.await;
        accepting.abort();
    }));
}

async fn accept(listener: TcpListener, pages: Arc<Pages>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, or the client has gone: neither is cured by hurry.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let pages = Arc::clone(&pages);
        tokio::task::spawn_local(async move {
            let answer = service_fn(move |request| {
                let response = respond(&request, pages.as_ref());
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(BUFFER_BYTES)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that breaks off or breaks the rules is not our error.
            let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
            drop(slot);
        });
    }
}

fn respond(request: &Request<Incoming>, pages: &Pages) -> Response<String> {
    let head = request.method() == Method::HEAD;
    if !head && request.method() != Method::GET {
        return answer(StatusCode::METHOD_NOT_ALLOWED, Page::new(Page::TEXT, "Only GET and HEAD\n".into()));
    }
    match pages(request.uri().path()) {
        Some(page) => {
            let status = if page.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            answer(status, if head { Page { text: String::new(), ..page } } else { page })
        }
        None => answer(StatusCode::NOT_FOUND, Page::new(Page::TEXT, "There is no such page\n".into())),
    }
}

fn answer(status: StatusCode, page: Page) -> Response<String> {
    let mut response = Response::new(page.text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn endpoint() -> Endpoint {
        let pages = |path: &str| match path {
            "/metrics" => Some(Page::new(Page::METRICS, "a 1\n".into())),
            "/healthz" => Some(Page::new(Page::TEXT, "ok\n".into())),
            "/readyz" => Some(Page { healthy: false, ..Page::new(Page::TEXT, "not yet\n".into()) }),
            _ => None,
        };
        Endpoint::open("127.0.0.1:0".parse().unwrap(), || (), pages).unwrap()
    }

    #[test]
    fn metrics_and_health_are_served_and_nothing_else() {
        let endpoint = endpoint();
        let get = |path: &str| {
            ask(endpoint.address(), &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
        };
        let metrics = get("/metrics");
        assert!(metrics.starts_with("HTTP/1.1 200 OK") && metrics.ends_with("a 1\n"), "{metrics}");
        assert!(metrics.contains("text/plain; version=0.0.4"));
        assert!(get("/healthz").ends_with("ok\n"));
        assert!(get("/readyz").starts_with("HTTP/1.1 503"));
        assert!(get("/etc/passwd").starts_with("HTTP/1.1 404"));
        let post = ask(endpoint.address(), "POST /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    }

    #[test]
    fn garbage_and_a_huge_head_are_refused_and_the_endpoint_goes_on() {
        let endpoint = endpoint();
        ask(endpoint.address(), "\0\0\0\0\r\n\r\n");
        let huge = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(100_000));
        let mut stream = TcpStream::connect(endpoint.address()).unwrap();
        // It may close the connection while we still write.
        let _ = stream.write_all(huge.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
        let request = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert!(ask(endpoint.address(), request).ends_with("ok\n"));
    }

    #[test]
    fn dropping_it_frees_the_address_and_ends_the_thread() {
        let endpoint = endpoint();
        let address = endpoint.address();
        // A client that says nothing does not hold it up.
        let _silent = TcpStream::connect(address).unwrap();
        drop(endpoint);
        let again = Endpoint::open(address, || (), |_| None);
        assert!(again.is_ok() || matches!(again, Err(EndpointError::Bind { .. })));
        assert!(TcpStream::connect(address).is_err() || again.is_ok());
    }

    #[test]
    fn an_address_in_use_is_named() {
        let endpoint = endpoint();
        let error = Endpoint::open(endpoint.address(), || (), |_| None).unwrap_err();
        assert!(error.to_string().contains(&endpoint.address().to_string()), "{error}");
    }
}
