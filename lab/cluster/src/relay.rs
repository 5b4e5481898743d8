//! A Unix socket that leads to a TCP port of this machine: the API server reaches the nodes by a proxy, which it asks over
//! a Unix socket only.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use pinion_lab::LabError;

use crate::ClusterError;

/// The socket; it is gone with this, its connections end by themselves.
#[derive(Debug)]
pub(crate) struct Relay {
    path: PathBuf,
}

impl Relay {
    /// Listens, on a thread of its own.
    pub(crate) fn open(path: &Path, port: u16) -> Result<Self, ClusterError> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).map_err(LabError::file("listen on", path))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A node that does not answer is an error for who asks, which the closed stream tells.
                thread::spawn(move || carry(stream, port));
            }
        });
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn carry(from: UnixStream, port: u16) -> io::Result<()> {
    let to = TcpStream::connect(("127.0.0.1", port))?;
    let (mut from_reader, mut to_writer) = (from.try_clone()?, to.try_clone()?);
    let there = thread::spawn(move || {
        let done = io::copy(&mut from_reader, &mut to_writer);
        let _ = to_writer.shutdown(Shutdown::Write);
        done
    });
    let (mut to, mut from) = (to, from);
    let done = io::copy(&mut to, &mut from);
    let _ = from.shutdown(Shutdown::Both);
    let _ = there.join();
    done.map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn both_directions_are_carried_to_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).unwrap();
        });
        let path = folder.path().join("socket");
        let relay = Relay::open(&path, port).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"words").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "WORDS");
        drop(relay);
        assert!(!path.exists());
    }
}
