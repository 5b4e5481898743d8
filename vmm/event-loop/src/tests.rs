use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;

#[derive(Debug)]
enum Then {
    Drain,
    Stop(EventLoopHandle),
    RemoveMe,
    Forget,
}

#[derive(Debug)]
struct Probe {
    fd: EventFd,
    told: Sender<Event>,
    then: Then,
}

impl Subscriber for Probe {
    fn ready(&mut self, event: Event, control: &mut Control<'_>) {
        match &self.then {
            Then::Drain => drop(self.fd.read()),
            Then::Stop(handle) => {
                drop(self.fd.read());
                handle.stop();
            }
            Then::RemoveMe => control.remove_me(),
            Then::Forget => control.forget(Interest::new(&self.fd, 0, Watch::Nothing)).unwrap(),
        }
        // Last: the test may signal again as soon as it hears this.
        self.told.send(event).unwrap();
    }
}

fn event_fd() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

fn subscribe(handle: &EventLoopHandle, token: u32, then: Then) -> (EventFd, Receiver<Event>, SubscriberId) {
    let fd = event_fd();
    let (told, hear) = channel();
    let probe = Probe { fd: fd.try_clone().unwrap(), told, then };
    let interest = Interest::new(&probe.fd, token, Watch::Readable);
    let id = handle.add(Box::new(probe), &[interest]).unwrap();
    (fd, hear, id)
}

#[test]
fn events_reach_the_subscriber_with_its_token_until_stopped() {
    let event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let (fd, hear, _) = subscribe(&handle, 7, Then::Drain);
    let thread = thread::spawn(move || event_loop.run());
    for _ in 0..3 {
        fd.write(1).unwrap();
        assert_eq!(hear.recv().unwrap(), Event { token: 7, readable: true, writable: false, hung_up: false });
    }
    handle.stop();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_subscriber_is_told_again_until_it_reads() {
    let event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    #[derive(Debug)]
    struct ThirdTime {
        _open: EventFd,
        times: u32,
        handle: EventLoopHandle,
    }
    impl Subscriber for ThirdTime {
        fn ready(&mut self, _: Event, _: &mut Control<'_>) {
            self.times += 1;
            if self.times == 3 {
                self.handle.stop();
            }
        }
    }
    let fd = event_fd();
    fd.write(1).unwrap();
    let interest = Interest::new(&fd, 0, Watch::Readable);
    let subscriber = ThirdTime { _open: fd, times: 0, handle: handle.clone() };
    handle.add(Box::new(subscriber), &[interest]).unwrap();
    event_loop.run().unwrap();
}

#[test]
fn a_stop_before_the_run_counts_once() {
    let event_loop = EventLoop::new().unwrap();
    event_loop.handle().stop();
    event_loop.run().unwrap();
    let (fd, hear, _) = subscribe(&event_loop.handle(), 0, Then::Stop(event_loop.handle()));
    fd.write(1).unwrap();
    event_loop.run().unwrap();
    assert_eq!(hear.iter().take(1).count(), 1);
}

#[test]
fn a_removed_subscriber_never_runs_again() {
    let event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let (fd, hear, id) = subscribe(&handle, 0, Then::Drain);
    let (last, last_hear, _) = subscribe(&handle, 1, Then::Stop(handle.clone()));
    drop(handle.remove(id).unwrap());
    assert!(handle.remove(id).is_none());
    fd.write(1).unwrap();
    last.write(1).unwrap();
    event_loop.run().unwrap();
    assert!(hear.recv().is_err(), "dropped with the subscriber, nothing sent");
    assert!(last_hear.recv().is_ok());
}

#[test]
fn removing_waits_for_a_running_subscriber() {
    #[derive(Debug)]
    struct Slow {
        fd: EventFd,
        entered: Sender<()>,
        go_on: Receiver<()>,
        finished: Arc<AtomicBool>,
    }
    impl Subscriber for Slow {
        fn ready(&mut self, _: Event, _: &mut Control<'_>) {
            drop(self.fd.read());
            self.entered.send(()).unwrap();
            self.go_on.recv().unwrap();
            self.finished.store(true, Ordering::SeqCst);
        }
    }
    let event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let (entered, has_entered) = channel();
    let (let_go, go_on) = channel();
    let finished = Arc::new(AtomicBool::new(false));
    let fd = event_fd();
    fd.write(1).unwrap();
    let interest = Interest::new(&fd, 0, Watch::Readable);
    let slow = Slow { fd, entered, go_on, finished: Arc::clone(&finished) };
    let id = handle.add(Box::new(slow), &[interest]).unwrap();
    let thread = thread::spawn(move || event_loop.run());
    has_entered.recv().unwrap();
    let remover = {
        let handle = handle.clone();
        thread::spawn(move || {
            drop(handle.remove(id).unwrap());
            finished.load(Ordering::SeqCst)
        })
    };
    let_go.send(()).unwrap();
    assert!(remover.join().unwrap(), "removal returned while the subscriber ran");
    handle.stop();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_subscriber_can_end_itself_or_one_watch() {
    let event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let (ends, ended, id) = subscribe(&handle, 0, Then::RemoveMe);
    let (forgets, forgot, _) = subscribe(&handle, 1, Then::Forget);
    ends.write(1).unwrap();
    forgets.write(1).unwrap();
    let thread = thread::spawn(move || event_loop.run());
    assert!(ended.recv().is_ok());
    assert!(ended.recv().is_err(), "the subscriber is dropped");
    assert!(forgot.recv().is_ok());
    assert!(forgot.try_recv().is_err());
    assert!(handle.remove(id).is_none());
    handle.stop();
    thread.join().unwrap().unwrap();
}

#[test]
fn what_cannot_be_watched_is_an_error_and_leaves_nothing() {
    let event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let (told, hear) = channel();
    let probe = Probe { fd: event_fd(), told, then: Then::Drain };
    let interests = [Interest::new(&probe.fd, 0, Watch::Readable), Interest::new(&file, 1, Watch::Readable)];
    let error = handle.add(Box::new(probe), &interests).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Cannot watch file descriptor {} in an event loop", file.as_raw_fd())
    );
    assert!(hear.recv().is_err(), "the subscriber is dropped");
}
