//! Serving requests from one stream, one at a time and in order.
//!
//! Called by `main` with the serial port, and by tests with a socket. Ends when the stream does.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pinion_lab_agent::{Answer, Outcome, Request, Stream, What, receive, send};

/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How much output goes into one frame at most.
const CHUNK: usize = 64 << 10;
/// How long output is waited for that processes left in the background might still print.
const LINGER: Duration = Duration::from_millis(200);

/// Why serving ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The host is to be powered off.
    PowerOff,
}

/// Serves until told to power off.
///
/// # Errors
/// When the stream breaks.
pub(crate) fn serve(mut requests: impl Read, answers: impl Write + Send) -> io::Result<End> {
    let answers = Mutex::new(answers);
    answer(&answers, 0, Outcome::Ready, &[])?;
    loop {
        let (Request { id, what }, body) = receive(&mut requests)?;
        let done = match what {
            What::Run { words, environment, limit_ms } => {
                let say = |stream, bytes: &[u8]| answer(&answers, id, Outcome::Printed(stream), bytes);
                let limit = Duration::from_millis(limit_ms);
                run(&words, &environment, body, limit, &say).map(|outcome| (outcome, Vec::new()))
            }
            What::Put { path, mode } => {
                put(Path::new(&path), &body, mode).map(|()| (Outcome::Done, Vec::new()))
            }
            What::Get { path } => fs::read(path).map(|content| (Outcome::Content, content)),
            What::PowerOff => return Ok(End::PowerOff),
        };
        let (outcome, body) = done.unwrap_or_else(|e| (Outcome::Failed(e.to_string()), Vec::new()));
        answer(&answers, id, outcome, &body)?;
    }
}

fn answer(to: &Mutex<impl Write>, id: u64, what: Outcome, body: &[u8]) -> io::Result<()> {
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    send(&mut *to, &Answer { id, what }, body)
}

fn put(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))
}

/// Runs a program to its end, or to its limit.
///
/// 1. The program leads a process group of its own.
/// 2. Its output is sent on while it runs; its input is fed beside, for it may not read it.
/// 3. At the limit the whole group is killed, so that nothing of it holds the output open.
/// 4. Whoever it left in the background may keep the pipes: their output is waited for shortly only.
fn run(
    words: &[String],
    environment: &[(String, String)],
    input: Vec<u8>,
    limit: Duration,
    say: &(impl Fn(Stream, &[u8]) -> io::Result<()> + Sync),
) -> io::Result<Outcome> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("no program"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    thread::spawn(move || stdin.map(|mut s| s.write_all(&input)));
    let (sender, printed) = std::sync::mpsc::sync_channel::<(Stream, Vec<u8>)>(16);
    for (stream, pipe) in [
        (Stream::Output, stdout.map(|p| Box::new(p) as Box<dyn Read + Send>)),
        (Stream::Errors, stderr.map(|p| Box::new(p) as Box<dyn Read + Send>)),
    ] {
        let sender = sender.clone();
        thread::spawn(move || pipe.map(|p| forward(p, |bytes| sender.send((stream, bytes)).is_ok())));
    }
    drop(sender);
    let end = Instant::now().checked_add(limit);
    let mut timed_out = false;
    let mut ended: Option<Instant> = None;
    loop {
        match printed.recv_timeout(LOOK) {
            Ok((stream, bytes)) => say(stream, &bytes)?,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) if ended.is_some() => break,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => thread::sleep(LOOK),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                if ended.is_some_and(|t| t.elapsed() > LINGER) =>
            {
                break;
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
        }
        if ended.is_none() && child.try_wait()?.is_some() {
            ended = Some(Instant::now());
        }
        if ended.is_none() && !timed_out && end.is_some_and(|end| Instant::now() >= end) {
            timed_out = true;
            kill(&child)?;
        }
    }
    let status = child.wait()?;
    Ok(Outcome::Ended { code: status.code(), signal: status.signal(), timed_out })
}

fn forward(mut from: impl Read, mut to: impl FnMut(Vec<u8>) -> bool) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || !to(buffer.get(..n).unwrap_or_default().to_vec()) {
            return;
        }
    }
}

fn kill(child: &Child) -> io::Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    Ok(killpg(group, Signal::SIGKILL)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// The far end of a served stream, after the greeting.
    fn client() -> UnixStream {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || serve(theirs.try_clone().unwrap(), theirs));
        let (greeting, _): (Answer, _) = receive(&mut ours).unwrap();
        assert_eq!(greeting, Answer { id: 0, what: Outcome::Ready });
        ours
    }

    fn shell(script: &str, limit_ms: u64) -> What {
        let words = ["sh", "-c", script].map(str::to_owned).to_vec();
        What::Run { words, environment: vec![("GREETING".into(), "hello".into())], limit_ms }
    }

    /// Answers to a request until one that ends it; and what was printed.
    fn end(client: &mut UnixStream, id: u64) -> (Outcome, String, String) {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        loop {
            let (answer, body): (Answer, _) = receive(client).unwrap();
            match answer {
                Answer { id: other, .. } if other != id => {}
                Answer { what: Outcome::Printed(Stream::Output), .. } => output.extend(body),
                Answer { what: Outcome::Printed(Stream::Errors), .. } => errors.extend(body),
                Answer { what, .. } => {
                    let text = |b| String::from_utf8(b).unwrap();
                    return (what, text(output), text(errors));
                }
            }
        }
    }

    #[test]
    fn a_program_gets_its_input_and_environment_and_gives_output_errors_and_code() {
        let mut client = client();
        let what = shell("echo $GREETING; cat; echo err >&2; exit 7", 60_000);
        send(&mut client, &Request { id: 1, what }, b"input").unwrap();
        let ended = Outcome::Ended { code: Some(7), signal: None, timed_out: false };
        assert_eq!(end(&mut client, 1), (ended, "hello\ninput".into(), "err\n".into()));
    }

    #[test]
    fn a_killed_client_leaves_nothing_that_the_next_could_take_for_its_own() {
        let mut client = client();
        send(&mut client, &Request { id: 1, what: shell("echo one; exit 1", 60_000) }, b"").unwrap();
        // The client of request 1 is gone without a look at its answers.
        send(&mut client, &Request { id: 2, what: shell("echo two; exit 2", 60_000) }, b"").unwrap();
        let ended = Outcome::Ended { code: Some(2), signal: None, timed_out: false };
        assert_eq!(end(&mut client, 2), (ended, "two\n".into(), String::new()));
    }

    #[test]
    fn at_the_limit_the_whole_process_group_is_killed() {
        let mut client = client();
        let what = shell("sleep 1000 & echo $!; wait", 500);
        send(&mut client, &Request { id: 1, what }, b"").unwrap();
        let (outcome, output, _) = end(&mut client, 1);
        assert_eq!(outcome, Outcome::Ended { code: None, signal: Some(9), timed_out: true });
        let state = fs::read_to_string(format!("/proc/{}/stat", output.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }

    #[test]
    fn a_process_left_in_the_background_does_not_keep_the_answer() {
        let mut client = client();
        let what = shell("sleep 30 & echo $!", 60_000);
        send(&mut client, &Request { id: 1, what }, b"").unwrap();
        let (outcome, output, _) = end(&mut client, 1);
        assert_eq!(outcome, Outcome::Ended { code: Some(0), signal: None, timed_out: false });
        let left = Pid::from_raw(output.trim().parse().unwrap());
        nix::sys::signal::kill(left, Signal::SIGKILL).unwrap();
    }

    #[test]
    fn what_cannot_be_done_says_why_and_the_next_request_is_served() {
        let mut client = client();
        let words = vec!["/no/such/program".to_owned()];
        let what = What::Run { words, environment: vec![], limit_ms: 1000 };
        send(&mut client, &Request { id: 1, what }, b"").unwrap();
        assert!(matches!(end(&mut client, 1).0, Outcome::Failed(why) if why.contains("No such file")));
        send(&mut client, &Request { id: 2, what: What::Get { path: "/no/such/file".into() } }, b"").unwrap();
        assert!(matches!(end(&mut client, 2).0, Outcome::Failed(_)));
        send(&mut client, &Request { id: 3, what: shell("true", 60_000) }, b"").unwrap();
        assert!(matches!(end(&mut client, 3).0, Outcome::Ended { code: Some(0), .. }));
    }

    #[test]
    fn a_frame_that_is_none_ends_the_service() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || serve(theirs.try_clone().unwrap(), theirs));
        ours.write_all(&[0xff; 16]).unwrap();
        assert!(server.join().unwrap().is_err());
    }

    #[test]
    fn power_off_is_passed_on() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || serve(theirs.try_clone().unwrap(), theirs));
        send(&mut ours, &Request { id: 1, what: What::PowerOff }, b"").unwrap();
        assert_eq!(server.join().unwrap().unwrap(), End::PowerOff);
    }
}
