//! The program that reads images: one image, then it ends.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::rc::Rc;

use vmm_image::{BootError, Media, examine};

use super::protocol::{Answer, Hello, MOST_AT_ONCE, Question, read_bytes};
use super::sandbox;

/// Reads an image through `socket`, and writes what boots to the two files. Gives up every privilege first.
///
/// # Errors
/// When the other process is gone, or this one cannot be confined. What is wrong with the image is told to the
/// other process.
pub fn serve(socket: File, kernel: File, initrd: File) -> io::Result<()> {
    sandbox::enter()?;
    let socket = Rc::new(RefCell::new(socket));
    let hello = Hello::read(&mut *socket.borrow_mut())?;
    let media = Remote { socket: Rc::clone(&socket), size: hello.size };
    let answer = read(Box::new(media), hello.boot, kernel, initrd)?;
    Question::Done(serde_json::to_vec(&answer)?).write(&mut *socket.borrow_mut())
}

fn read(media: Box<dyn Media>, boot: bool, mut kernel: File, mut initrd: File) -> io::Result<Answer> {
    let refused = |e: &BootError| Some((e.reason().to_owned(), e.to_string()));
    let examined = match examine(media) {
        Ok(examined) => examined,
        Err(e) => return Ok(Answer { report: None, command_line: None, refusal: refused(&e) }),
    };
    let mut answer = Answer { report: Some(examined.report()), command_line: None, refusal: None };
    if boot {
        match examined.boot(&mut kernel, &mut initrd) {
            Ok(line) => answer.command_line = Some(line),
            Err(e) => answer.refusal = refused(&e),
        }
    }
    Ok(answer)
}

/// The disk, at the other end of the socket.
struct Remote {
    socket: Rc<RefCell<File>>,
    size: u64,
}

impl Media for Remote {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, to: &mut [u8], offset: u64) -> io::Result<()> {
        let most = usize::try_from(MOST_AT_ONCE).unwrap_or(usize::MAX);
        let mut at = offset;
        for part in to.chunks_mut(most) {
            let length = u32::try_from(part.len()).unwrap_or(0);
            let mut socket = self.socket.borrow_mut();
            Question::Read { offset: at, length }.write(&mut *socket)?;
            read_bytes(&mut *socket, part)?;
            at = at.saturating_add(u64::from(length));
        }
        Ok(())
    }
}
