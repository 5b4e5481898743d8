//! Runs inside a lab host: takes requests from the serial port named on its command line, one
//! at a time, and answers each. It ends only with its host.

#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pinion_lab_agent::{Answer, Outcome, Request, What, receive, send};

/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let Some(port) = std::env::args().nth(1) else {
        eprintln!("usage: pinion-lab-agent PORT");
        return ExitCode::from(2);
    };
    match serve(Path::new(&port)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("pinion-lab-agent: {port}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: &Path) -> io::Result<()> {
    let mut answers = OpenOptions::new().read(true).write(true).open(port)?;
    let mut requests = answers.try_clone()?;
    send(&mut answers, &Answer { id: 0, what: Outcome::Ready })?;
    loop {
        let Request { id, what } = receive(&mut requests)?;
        let outcome = carry_out(what).unwrap_or_else(|e| Outcome::Failed(e.to_string()));
        send(&mut answers, &Answer { id, what: outcome })?;
    }
}

fn carry_out(what: What) -> io::Result<Outcome> {
    match what {
        What::Run { words, input, limit_ms } => run(&words, input, Duration::from_millis(limit_ms)),
        What::Put { path, content, mode } => put(Path::new(&path), &content, mode),
        What::Get { path } => fs::read(path).map(Outcome::Content),
    }
}

fn put(path: &Path, content: &[u8], mode: u32) -> io::Result<Outcome> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(Outcome::Done)
}

fn run(words: &[String], input: Vec<u8>, limit: Duration) -> io::Result<Outcome> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("no program"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let stdin = child.stdin.take();
    // A program that does not read its input must not keep the agent.
    let feeder = thread::spawn(move || stdin.map(|mut s| s.write_all(&input)));
    let (output, errors) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let timed_out = wait(&mut child, limit)?;
    let status = child.wait()?;
    drop(feeder);
    let text = |t: JoinHandle<Vec<u8>>| t.join().unwrap_or_default();
    Ok(Outcome::Ended {
        code: status.code(),
        signal: status.signal(),
        timed_out,
        output: text(output),
        errors: text(errors),
    })
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Waits for the child, and kills its process group at the limit; says whether it did.
fn wait(child: &mut Child, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() >= end {
            let group = format!("-{}", child.id());
            Command::new("kill").args(["-KILL", &group]).status()?;
            return Ok(true);
        }
        thread::sleep(LOOK);
    }
    Ok(false)
}
