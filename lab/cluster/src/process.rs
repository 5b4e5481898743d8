//! Programs of this machine that belong to a cluster: each writes to a log of its own, and dies with the thread that
//! started it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pinion_lab::LabError;

use crate::ClusterError;

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; its log is `NAME.log` in that folder.
    pub(crate) fn start(program: &Path, arguments: &[String], folder: &Path) -> Result<Self, ClusterError> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).map_err(LabError::file("create", &log))?;
        let second = file.try_clone().map_err(LabError::file("open", &log))?;
        let started = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second)
            .spawn();
        let child =
            started.map_err(|source| ClusterError::Program { program: program.to_owned(), source })?;
        Ok(Self { child, log })
    }

    /// Whether it has ended, with the end of its log.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("it ended ({status}) and said {:?}", self.last_words()))
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Ends it at once: an API server that is asked to end takes a minute, and keeps its port.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_said_last_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let words = ["-c", "echo one; echo two >&2; exit 3"].map(str::to_owned);
        let mut process = Process::start(Path::new("/bin/sh"), &words, folder.path()).unwrap();
        let said = loop {
            match process.ended() {
                Some(said) => break said,
                None => std::thread::sleep(std::time::Duration::from_millis(10)),
            }
        };
        assert_eq!(said, r#"it ended (exit status: 3) and said "one\ntwo""#);
    }
}
