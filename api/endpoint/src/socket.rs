//! Requests over Unix sockets: one line of JSON each way, then perhaps a stream.
//!
//! One request per connection: nothing is remembered between two, so either end may be started anew at any time.
//! Served on the thread that calls [`serve`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::descriptor;

/// Longest request and longest answer, bytes.
pub const LONGEST_LINE: usize = 4 << 20;
/// Connections at once; more wait.
const CONNECTIONS: usize = 64;
/// Connections of one user at once, but for root; more are closed.
const OF_ONE_USER: usize = 16;
/// Time for a request to arrive, and for its answer to be taken.
const LINE_TIME: Duration = Duration::from_secs(5);

/// Who asks, as the kernel says (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process; 0 where it is in another PID namespace.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// An answer: what was asked for, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply<T> {
    /// What was asked for.
    Done(T),
    /// Why not.
    Refused(Refusal),
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct Refusal {
    /// A stable code.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// Why a socket is not listened on.
#[derive(Debug, thiserror::Error)]
#[error("Cannot listen on {path:?}")]
pub struct SocketError {
    /// The socket.
    pub path: PathBuf,
    /// From the operating system.
    #[source]
    pub source: io::Error,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("Nobody answers at {path:?}")]
    Absent {
        /// The socket.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// The connection broke, or took too long.
    #[error("The connection to {path:?} broke")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A request that has arrived.
#[derive(Debug)]
pub struct Caller {
    /// Who asks.
    pub peer: Peer,
    /// The line, without its end.
    pub request: Vec<u8>,
    /// What came after the line.
    pub rest: Vec<u8>,
    stream: UnixStream,
}

impl Caller {
    /// Answers. Whoever does not take the answer in time goes without.
    pub async fn reply<T: Serialize>(self, reply: &Reply<T>) {
        let _ = self.begin(reply).await;
    }

    /// Answers, and hands over descriptors with the answer, four at most. Whoever asks without expecting any never has them.
    pub async fn hand_over<T: Serialize>(mut self, reply: &Reply<T>, descriptors: Vec<OwnedFd>) {
        let Ok(mut line) = serde_json::to_vec(reply) else { return };
        line.push(b'\n');
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(OwnedFd::as_fd).collect();
        let given = async {
            let sent =
                self.stream.async_io(Interest::WRITABLE, || descriptor::send(&self.stream, &line, &borrowed));
            let sent = sent.await?;
            self.stream.write_all(line.get(sent..).unwrap_or_default()).await
        };
        // Whoever does not take the answer in time goes without.
        let _ = tokio::time::timeout(LINE_TIME, given).await;
    }

    /// Answers, and keeps the connection: for what is streamed after the answer, with what came after the request.
    pub async fn begin<T: Serialize>(mut self, reply: &Reply<T>) -> Option<(UnixStream, Vec<u8>)> {
        let mut line = serde_json::to_vec(reply).ok()?;
        line.push(b'\n');
        tokio::time::timeout(LINE_TIME, self.stream.write_all(&line)).await.ok()?.ok()?;
        Some((self.stream, self.rest))
    }
}

/// Makes a socket that users of its mode may connect to. One that nobody listens on any more is replaced.
///
/// # Errors
/// Where it cannot be made, or somebody listens on it.
pub fn bind(path: &Path, mode: u32) -> Result<StdListener, SocketError> {
    let failed = |source| SocketError { path: path.to_owned(), source };
    if StdStream::connect(path).is_ok() {
        return Err(failed(io::ErrorKind::AddrInUse.into()));
    }
    let is_socket = |m: std::fs::Metadata| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type());
    if std::fs::symlink_metadata(path).is_ok_and(is_socket) {
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = StdListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Serves a socket for ever, within bounds. To be called in a `LocalSet`.
///
/// # Errors
/// Where the listener cannot be used.
pub async fn serve<F, R>(listener: StdListener, handle: F) -> io::Result<()>
where
    F: Fn(Caller) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    let listener = UnixListener::from_std(listener)?;
    let (slots, users) = (Arc::new(Semaphore::new(CONNECTIONS)), Users::default());
    let handle = Rc::new(handle);
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return Ok(()) };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, or the client has gone: neither is cured by hurry.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(peer) = peer(&stream) else { continue };
        let Some(seat) = users.seat(peer.uid) else { continue };
        let handle = Rc::clone(&handle);
        tokio::task::spawn_local(async move {
            let arrived = tokio::time::timeout(LINE_TIME, receive(peer, stream)).await;
            if let Ok(Some(caller)) = arrived {
                handle(caller).await;
            }
            drop((slot, seat));
        });
    }
}

fn peer(stream: &UnixStream) -> Option<Peer> {
    let credentials = stream.peer_cred().ok()?;
    Some(Peer { pid: credentials.pid().unwrap_or(0), uid: credentials.uid(), gid: credentials.gid() })
}

async fn receive(peer: Peer, mut stream: UnixStream) -> Option<Caller> {
    let mut request = Vec::new();
    let mut bytes = vec![0; 16 << 10];
    loop {
        let read = stream.read(&mut bytes).await.ok().filter(|n| *n > 0)?;
        let from = request.len();
        request.extend_from_slice(bytes.get(..read)?);
        if let Some(end) = request.get(from..)?.iter().position(|b| *b == b'\n') {
            let rest = request.split_off(from + end + 1);
            request.pop();
            return Some(Caller { peer, request, rest, stream });
        }
        if request.len() > LONGEST_LINE {
            return None;
        }
    }
}

/// How many connections each user has.
#[derive(Clone, Debug, Default)]
struct Users(Rc<RefCell<HashMap<u32, usize>>>);

/// One of a user's connections.
#[derive(Debug)]
struct Seat {
    users: Users,
    uid: u32,
}

impl Users {
    fn seat(&self, uid: u32) -> Option<Seat> {
        let mut users = self.0.borrow_mut();
        let count = users.entry(uid).or_default();
        if *count >= OF_ONE_USER && uid != 0 {
            return None;
        }
        *count += 1;
        Some(Seat { users: self.clone(), uid })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut users = self.users.0.borrow_mut();
        if let Some(count) = users.get_mut(&self.uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

/// Asks, and waits for the answer; for programs that have nothing else to do.
///
/// # Errors
/// [`AskError`].
pub fn ask<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    request: &Q,
    limit: Duration,
) -> Result<A, AskError> {
    open(path, request, limit).map(|(answer, _, _)| answer)
}

/// Asks, and keeps the connection for what is streamed after the answer: of that, what came already is the third.
///
/// # Errors
/// [`AskError`].
pub fn open<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    request: &Q,
    limit: Duration,
) -> Result<(A, StdStream, Vec<u8>), AskError> {
    let (answer, stream, rest, _) = put(path, request, limit)?;
    Ok((answer, stream, rest))
}

/// Asks, and takes the descriptors that come with the answer.
///
/// # Errors
/// [`AskError`].
pub fn ask_for_descriptors<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    request: &Q,
    limit: Duration,
) -> Result<(A, Vec<OwnedFd>), AskError> {
    put(path, request, limit).map(|(answer, _, _, descriptors)| (answer, descriptors))
}

/// An answer, the connection, what came after the answer, and descriptors that came with it.
type Put<A> = (A, StdStream, Vec<u8>, Vec<OwnedFd>);

fn put<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    request: &Q,
    limit: Duration,
) -> Result<Put<A>, AskError> {
    let broken = |source| AskError::Broken { path: path.to_owned(), source };
    let mut stream =
        StdStream::connect(path).map_err(|source| AskError::Absent { path: path.to_owned(), source })?;
    let mut line = serde_json::to_vec(request).map_err(|e| broken(e.into()))?;
    line.push(b'\n');
    stream.set_write_timeout(Some(limit)).map_err(broken)?;
    stream.write_all(&line).map_err(broken)?;
    let (line, rest, descriptors) = line_of(&stream, limit).map_err(broken)?;
    match serde_json::from_slice(&line).map_err(|e| broken(e.into()))? {
        Reply::Done(answer) => Ok((answer, stream, rest, descriptors)),
        Reply::Refused(refusal) => Err(refusal.into()),
    }
}

/// A line, what came after it, and descriptors that came with it.
type Line = (Vec<u8>, Vec<u8>, Vec<OwnedFd>);

/// Reads up to the end of a line.
fn line_of(stream: &StdStream, limit: Duration) -> io::Result<Line> {
    let end = Instant::now() + limit;
    let mut line = Vec::new();
    let mut bytes = vec![0; 64 << 10];
    let mut descriptors = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || line.len() > 16 * LONGEST_LINE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let (read, came) = descriptor::receive(stream, &mut bytes)?;
        descriptors.extend(came);
        let from = line.len();
        line.extend_from_slice(bytes.get(..read).unwrap_or_default());
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(at) = line.iter().skip(from).position(|b| *b == b'\n') {
            let rest = line.split_off(from + at + 1);
            stream.set_read_timeout(None)?;
            return Ok((line, rest, descriptors));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A socket that answers each request with itself, on a thread that lives as long as the test's process.
    fn echo() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = bind(&path, 0o600).unwrap();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let answer = |caller: Caller| async move {
                match serde_json::from_slice::<String>(&caller.request) {
                    Ok(text) => caller.reply(&Reply::Done(text)).await,
                    Err(e) => {
                        caller.reply(&Reply::<()>::Refused(Refusal::new("Malformed", e.to_string()))).await
                    }
                }
            };
            tokio::task::LocalSet::new().block_on(&runtime, serve(listener, answer)).unwrap();
        });
        (folder, path)
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_request_is_answered_and_a_refusal_keeps_its_reason() {
        let (_folder, path) = echo();
        assert_eq!(ask::<_, String>(&path, &"a\nb", SOON).unwrap(), "a\nb");
        let refused = ask::<_, String>(&path, &7, SOON).unwrap_err();
        assert!(matches!(refused, AskError::Refused(r) if r.reason == "Malformed"));
    }

    #[test]
    fn descriptors_come_with_a_long_answer_and_only_to_who_expects_them() {
        let file = |path| OwnedFd::from(std::fs::File::open(path).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = bind(&path, 0o600).unwrap();
        let long = "x".repeat(1 << 20);
        let answer = long.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let answer = move |caller: Caller| {
                let reply = Reply::Done(answer.clone());
                async move { caller.hand_over(&reply, vec![file("/proc/version"), file("/proc/uptime")]).await }
            };
            tokio::task::LocalSet::new().block_on(&runtime, serve(listener, answer)).unwrap();
        });
        let (text, mut given) = ask_for_descriptors::<_, String>(&path, &1, SOON).unwrap();
        assert_eq!((text, given.len()), (long.clone(), 2));
        let read = io::read_to_string(std::fs::File::from(given.remove(0))).unwrap();
        assert_eq!(read, std::fs::read_to_string("/proc/version").unwrap());
        assert_eq!(ask::<_, String>(&path, &1, SOON).unwrap(), long);
        let (_echo, path) = echo();
        assert!(ask_for_descriptors::<_, String>(&path, &"a", SOON).unwrap().1.is_empty());
    }

    #[test]
    fn clients_that_say_nothing_or_too_much_do_not_hold_up_others() {
        let (_folder, path) = echo();
        let silent: Vec<_> = (0..70).filter_map(|_| StdStream::connect(&path).ok()).collect();
        let mut large = StdStream::connect(&path).unwrap();
        // It is closed while we write.
        let _ = large.write_all(&vec![b'x'; LONGEST_LINE + (1 << 20)]);
        drop(silent);
        // Not root, one's own connections count until it is noticed that they are gone.
        let end = Instant::now() + SOON;
        let answered = || ask::<_, String>(&path, &"a", SOON).is_ok_and(|a| a == "a");
        while !answered() {
            assert!(Instant::now() < end);
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_socket_in_use_is_left_and_one_left_behind_is_replaced() {
        let (folder, path) = echo();
        assert_eq!(bind(&path, 0o600).unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
        let old = folder.path().join("old");
        drop(StdListener::bind(&old).unwrap());
        bind(&old, 0o600).unwrap();
        let absent = ask::<_, String>(&folder.path().join("none"), &"a", SOON).unwrap_err();
        assert!(matches!(absent, AskError::Absent { .. }));
    }

    #[test]
    fn one_user_has_so_many_connections_and_root_any() {
        let users = Users::default();
        let seats: Vec<_> = (0..OF_ONE_USER + 3).filter_map(|_| users.seat(7)).collect();
        assert_eq!(seats.len(), OF_ONE_USER);
        assert!(users.seat(8).is_some() && users.seat(7).is_none());
        drop(seats);
        assert!(users.seat(7).is_some());
        assert_eq!((0..100).filter_map(|_| users.seat(0)).map(std::mem::forget).count(), 100);
    }
}
