//! Locks of open images: open file description locks of the whole file, so that they go with
//! the descriptor (also by crash) and hold against other processes and other guests of this one.
//! QEMU's locks lie within the same range, so that both refuse what the other has.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::{Access, OpenError};

pub(crate) fn lock(file: &File, access: Access, name: &str) -> Result<(), OpenError> {
    let kind = match access {
        Access::ReadOnly => libc::F_RDLCK,
        Access::ReadWrite => libc::F_WRLCK,
    };
    let range = libc::flock {
        l_type: i16::try_from(kind).unwrap_or(i16::MAX),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range)) {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(OpenError::Locked { name: name.to_owned() }),
        Err(error) => {
            Err(OpenError::Lock { name: name.to_owned(), source: io::Error::from_raw_os_error(error as i32) })
        }
    }
}
