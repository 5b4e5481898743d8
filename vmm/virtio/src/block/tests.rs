use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

use vm_memory::VolatileSlice;
use vmm_block::{Access, Disk, DiskError, DiskOptions, ImageFormat, Space, open_file};
use vmm_event_loop::EventLoop;

use super::config::{F_CONFIG_WCE, F_FLUSH, F_RO};
use super::*;
use crate::driver::{Buffer, DATA, Driver, DriverQueue};
use crate::features::{EVENT_IDX, INDIRECT_DESC};

const HEADER: u64 = DATA;
const STATUS: u64 = DATA + 0x1000;
const BODY: u64 = DATA + 0x2000;
const SECTORS: u64 = 64;

/// A disk that can be told to fail, and that remembers flushes.
#[derive(Debug)]
struct Faulty {
    inner: Box<dyn Disk>,
    fail: Arc<Mutex<Option<i32>>>,
    flushes: Arc<Mutex<usize>>,
}

impl Faulty {
    fn check(&self, action: &'static str) -> Result<(), DiskError> {
        match *self.fail.lock().unwrap() {
            Some(error) => Err(DiskError::new(action, "faulty", std::io::Error::from_raw_os_error(error))),
            None => Ok(()),
        }
    }
}

impl Disk for Faulty {
    fn name(&self) -> &str {
        "faulty"
    }
    fn capacity(&self) -> u64 {
        self.inner.capacity()
    }
    fn access(&self) -> Access {
        self.inner.access()
    }
    fn read(&mut self, to: &[VolatileSlice<'_>], offset: u64) -> Result<(), DiskError> {
        self.check("read")?;
        self.inner.read(to, offset)
    }
    fn write(&mut self, from: &[VolatileSlice<'_>], offset: u64) -> Result<(), DiskError> {
        self.check("write to")?;
        self.inner.write(from, offset)
    }
    fn flush(&mut self) -> Result<(), DiskError> {
        self.check("flush")?;
        *self.flushes.lock().unwrap() += 1;
        self.inner.flush()
    }
    fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.inner.discard(offset, len)
    }
    fn write_zeroes(&mut self, offset: u64, len: u64, space: Space) -> Result<(), DiskError> {
        self.inner.write_zeroes(offset, len, space)
    }
}

struct Rig {
    driver: Driver,
    queue: DriverQueue,
    event_loop: EventLoop,
    metrics: Arc<BlockMetrics>,
    fail: Arc<Mutex<Option<i32>>>,
    flushes: Arc<Mutex<usize>>,
}

impl Rig {
    fn new(access: Access, features: u64) -> Self {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..SECTORS * 512).map(|at| u8::try_from(at / 512).unwrap()).collect();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
        let options = DiskOptions { access, format: Some(ImageFormat::Raw) };
        let inner = open_file(file, "test", options).unwrap();
        let (fail, flushes) = (Arc::default(), Arc::default());
        let disk = Faulty { inner, fail: Arc::clone(&fail), flushes: Arc::clone(&flushes) };
        let event_loop = EventLoop::new().unwrap();
        let options = BlockOptions { serial: SerialNumber::new("disk-0"), ..BlockOptions::default() };
        let device = BlockDevice::new(Arc::new(Mutex::new(Box::new(disk))), options, event_loop.handle());
        let metrics = device.metrics();
        let mut driver = Driver::new(Box::new(device));
        assert!(driver.negotiate(features));
        driver.enable_interrupts(1);
        let queue = driver.queue(0, 16);
        assert!(driver.start());
        Self { driver, queue, event_loop, metrics, fail, flushes }
    }

    fn header(&self, kind: u32, sector: u64) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.driver.put(HEADER, &header);
        self.driver.put(STATUS, &[0xee]);
    }

    fn run(&mut self) -> Option<(u32, u32)> {
        self.driver.kick(0);
        while self.event_loop.serve_ready().unwrap() > 0 {}
        self.queue.take_used()
    }

    /// Does a request; gives its status and the bytes that the device says it wrote.
    fn request(&mut self, kind: u32, sector: u64, body: &[Buffer]) -> (u8, u32) {
        self.header(kind, sector);
        let mut buffers = vec![Buffer::readable(HEADER, 16)];
        buffers.extend_from_slice(body);
        buffers.push(Buffer::writable(STATUS, 1));
        let head = self.queue.add(&buffers);
        let (used, written) = self.run().unwrap();
        assert_eq!(used, u32::from(head));
        (self.driver.get(STATUS, 1)[0], written)
    }

    fn broken(&mut self) -> bool {
        self.driver.kick(0);
        while self.event_loop.serve_ready().unwrap() > 0 {}
        self.driver.status() & 64 != 0
    }
}

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

#[test]
fn reads_and_writes_move_whole_sectors_in_any_cut() {
    let mut rig = Rig::new(Access::ReadWrite, F_FLUSH);
    let body = [Buffer::writable(BODY, 100), Buffer::writable(BODY + 0x1000, 924)];
    assert_eq!(rig.request(READ, 3, &body), (0, 1025));
    assert_eq!(rig.driver.get(BODY, 100), [3; 100]);
    assert_eq!(rig.driver.get(BODY + 0x1000, 924)[..412], [3; 412]);
    assert_eq!(rig.driver.get(BODY + 0x1000, 924)[412..], [4; 512]);
    rig.driver.put(BODY, &[0xab; 512]);
    assert_eq!(rig.request(WRITE, 5, &[Buffer::readable(BODY, 512)]), (0, 1));
    assert_eq!(rig.request(READ, 5, &[Buffer::writable(BODY + 0x1000, 512)]), (0, 513));
    assert_eq!(rig.driver.get(BODY + 0x1000, 512), [0xab; 512]);
    let stats = rig.metrics.snapshot();
    assert_eq!((stats.reads.operations, stats.reads.bytes), (2, 1536));
    assert_eq!((stats.writes.operations, stats.writes.bytes), (1, 512));
    assert!(rig.driver.router.take(0) >= 3, "an interrupt for each");
}

#[test]
fn header_and_status_may_share_descriptors_with_data() {
    let mut rig = Rig::new(Access::ReadWrite, F_FLUSH);
    rig.header(WRITE, 7);
    let mut bytes = rig.driver.get(HEADER, 16);
    bytes.extend_from_slice(&[0x77; 512]);
    rig.driver.put(BODY, &bytes);
    rig.queue.add(&[Buffer::readable(BODY, 528), Buffer::writable(STATUS, 1)]);
    assert_eq!(rig.run(), Some((0, 1)));
    assert_eq!(rig.driver.get(STATUS, 1), [0]);
    rig.header(READ, 7);
    rig.queue.add(&[Buffer::readable(HEADER, 16), Buffer::writable(BODY, 513)]);
    assert_eq!(rig.run().unwrap().1, 513);
    assert_eq!(rig.driver.get(BODY, 513), [&[0x77; 512][..], &[0]].concat());
}

#[test]
fn indirect_chains_work() {
    let mut rig = Rig::new(Access::ReadWrite, F_FLUSH | INDIRECT_DESC);
    rig.header(READ, 9);
    let chain = [Buffer::readable(HEADER, 16), Buffer::writable(BODY, 512), Buffer::writable(STATUS, 1)];
    rig.queue.add_indirect(DATA + 0x8000, &chain);
    assert_eq!(rig.run(), Some((0, 513)));
    assert_eq!(rig.driver.get(BODY, 512), [9; 512]);
}

#[test]
fn the_serial_number_is_given() {
    let mut rig = Rig::new(Access::ReadOnly, 0);
    assert_eq!(rig.request(GET_ID, 0, &[Buffer::writable(BODY, 20)]), (0, 21));
    assert_eq!(rig.driver.get(BODY, 20), *b"disk-0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(rig.request(GET_ID, 0, &[Buffer::writable(BODY, 4)]), (0, 5));
}

#[test]
fn without_flush_each_write_is_stable_before_it_is_done() {
    let mut rig = Rig::new(Access::ReadWrite, 0);
    rig.request(WRITE, 0, &[Buffer::readable(BODY, 512)]);
    assert_eq!(*rig.flushes.lock().unwrap(), 1);
    let mut rig = Rig::new(Access::ReadWrite, F_FLUSH);
    rig.request(WRITE, 0, &[Buffer::readable(BODY, 512)]);
    assert_eq!(*rig.flushes.lock().unwrap(), 0, "the driver flushes itself");
    assert_eq!(rig.request(FLUSH, 0, &[]), (0, 1));
    assert_eq!(*rig.flushes.lock().unwrap(), 1);
    assert_eq!(rig.metrics.snapshot().flushes.operations, 1);
}

#[test]
fn the_driver_may_turn_the_write_cache_off() {
    let mut rig = Rig::new(Access::ReadWrite, F_FLUSH | F_CONFIG_WCE);
    rig.driver.write(20, 1, 0);
    assert_eq!(rig.driver.read(0x2020, 1), 1);
    assert!(rig.driver.negotiate(F_FLUSH | F_CONFIG_WCE));
    rig.driver.write(0x2020, 1, 0);
    rig.queue = rig.driver.queue(0, 16);
    assert!(rig.driver.start());
    rig.request(WRITE, 0, &[Buffer::readable(BODY, 512)]);
    assert_eq!(*rig.flushes.lock().unwrap(), 1);
}

#[test]
fn zeroes_and_discards_take_ranges() {
    let mut rig = Rig::new(Access::ReadWrite, F_FLUSH);
    let range = |sector: u64, sectors: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    rig.driver.put(BODY, &[range(2, 1, 0), range(4, 2, 1)].concat());
    assert_eq!(rig.request(WRITE_ZEROES, 0, &[Buffer::readable(BODY, 32)]), (0, 1));
    rig.request(READ, 2, &[Buffer::writable(BODY, 2560)]);
    let read = rig.driver.get(BODY, 2560);
    let firsts: Vec<u8> = read.chunks(512).map(|sector| sector[0]).collect();
    assert_eq!(firsts, [0, 3, 0, 0, 6]);
    rig.driver.put(BODY, &range(8, 8, 0));
    assert_eq!(rig.request(DISCARD, 0, &[Buffer::readable(BODY, 16)]), (0, 1));
    rig.driver.put(BODY, &range(8, 8, 1));
    assert_eq!(rig.request(DISCARD, 0, &[Buffer::readable(BODY, 16)]).0, 2, "no such flag");
    rig.driver.put(BODY, &range(0, u32::MAX, 0));
    assert_eq!(rig.request(DISCARD, 0, &[Buffer::readable(BODY, 16)]).0, 1, "too long");
    assert_eq!(rig.request(DISCARD, 0, &[Buffer::readable(BODY, 15)]).0, 1, "half a range");
}

#[test]
fn impossible_requests_get_an_error_and_the_disk_goes_on() {
    let mut rig = Rig::new(Access::ReadWrite, F_FLUSH);
    assert_eq!(rig.request(READ, SECTORS, &[Buffer::writable(BODY, 512)]), (1, 1));
    assert_eq!(rig.request(READ, u64::MAX, &[Buffer::writable(BODY, 512)]), (1, 1));
    assert_eq!(rig.request(READ, 0, &[Buffer::writable(BODY, 511)]), (1, 1));
    assert_eq!(rig.request(WRITE, SECTORS - 1, &[Buffer::readable(BODY, 1024)]), (1, 1));
    assert_eq!(rig.request(99, 0, &[]), (2, 1));
    assert_eq!(rig.request(READ, 0, &[Buffer::writable(BODY, 512)]), (0, 513));
    assert_eq!(rig.metrics.snapshot().errors.values().sum::<u64>(), 5);
}

#[test]
fn a_read_only_disk_says_so_and_refuses_writes() {
    let mut rig = Rig::new(Access::ReadOnly, F_RO);
    assert_eq!(rig.request(WRITE, 0, &[Buffer::readable(BODY, 512)]).0, 1);
    assert_eq!(rig.request(READ, 0, &[Buffer::writable(BODY, 512)]).0, 0);
}

#[test]
fn errors_of_the_host_reach_the_guest_and_the_counters() {
    for (error, label) in [(28, "full"), (5, "io"), (6, "vanished"), (122, "full")] {
        let mut rig = Rig::new(Access::ReadWrite, F_FLUSH);
        *rig.fail.lock().unwrap() = Some(error);
        assert_eq!(rig.request(WRITE, 0, &[Buffer::readable(BODY, 512)]), (1, 1));
        let stats = rig.metrics.snapshot();
        assert_eq!(stats.errors.get(label), Some(&1), "{error}: {stats:?}");
        assert!(stats.last_error.unwrap().starts_with("Cannot write to disk image faulty: "));
        *rig.fail.lock().unwrap() = None;
        assert_eq!(rig.request(WRITE, 0, &[Buffer::readable(BODY, 512)]), (0, 1), "the disk goes on");
    }
}

#[test]
fn hostile_chains_break_the_device_until_it_is_reset() {
    type Hostile = fn(&mut Rig);
    let cases: [(&str, Hostile); 9] = [
        ("loop", |rig| {
            rig.queue.descriptor(0, Buffer::readable(HEADER, 16), 1, 0);
            rig.queue.offer(0);
        }),
        ("head outside", |rig| rig.queue.offer(16)),
        ("next outside", |rig| {
            rig.queue.descriptor(0, Buffer::readable(HEADER, 16), 1, 500);
            rig.queue.offer(0);
        }),
        ("buffer outside", |rig| {
            rig.queue.add(&[Buffer::readable(u64::MAX - 8, 16), Buffer::writable(STATUS, 1)]);
        }),
        ("readable after writable", |rig| {
            rig.queue.add(&[Buffer::writable(STATUS, 1), Buffer::readable(HEADER, 16)]);
        }),
        ("no status", |rig| {
            rig.queue.add(&[Buffer::readable(HEADER, 16)]);
        }),
        ("no header", |rig| {
            rig.queue.add(&[Buffer::writable(STATUS, 1)]);
        }),
        ("index too far", |rig| rig.queue.set_available(17)),
        ("indirect within indirect", |rig| {
            rig.queue.descriptor(0, Buffer::readable(BODY, 16), 4, 0);
            rig.driver.put(BODY, &[&BODY.to_le_bytes()[..], &16_u32.to_le_bytes(), &[4, 0, 0, 0]].concat());
            rig.queue.offer(0);
        }),
    ];
    for (name, hostile) in cases {
        let mut rig = Rig::new(Access::ReadWrite, F_FLUSH | INDIRECT_DESC);
        rig.header(READ, 0);
        hostile(&mut rig);
        assert!(rig.broken(), "{name}");
        assert!(rig.driver.router.take(1) > 0, "{name}: the driver is told");
        rig.driver.write(20, 1, 0);
        assert!(rig.driver.negotiate(F_FLUSH));
        rig.queue = rig.driver.queue(0, 16);
        assert!(rig.driver.start());
        assert_eq!(rig.request(READ, 0, &[Buffer::writable(BODY, 512)]), (0, 513), "{name}");
    }
}

#[test]
fn interrupts_come_when_the_driver_asks_for_them() {
    let mut rig = Rig::new(Access::ReadWrite, F_FLUSH | EVENT_IDX);
    assert_eq!(rig.queue.available_event(), 0);
    rig.queue.set_used_event(1);
    rig.header(READ, 0);
    let chain = [Buffer::readable(HEADER, 16), Buffer::writable(BODY, 512), Buffer::writable(STATUS, 1)];
    rig.queue.add(&chain);
    rig.run().unwrap();
    assert_eq!(rig.driver.router.take(0), 0, "not yet");
    assert_eq!(rig.queue.available_event(), 1, "kick at the next one");
    rig.queue.add(&chain);
    rig.run().unwrap();
    assert_eq!(rig.driver.router.take(0), 1);
}

#[test]
fn more_requests_than_one_turn_allows_are_all_served() {
    let mut rig = Rig::new(Access::ReadWrite, F_FLUSH);
    for _ in 0..50 {
        for _ in 0..5 {
            rig.header(FLUSH, 0);
            rig.queue.add(&[Buffer::readable(HEADER, 16), Buffer::writable(STATUS, 1)]);
        }
        rig.run().unwrap();
        for _ in 0..4 {
            rig.queue.take_used().unwrap();
        }
    }
    assert_eq!(rig.metrics.snapshot().flushes.operations, 250);
}

#[test]
fn a_reset_waits_for_the_request_in_flight() {
    #[derive(Debug)]
    struct Slow {
        entered: mpsc::Sender<()>,
        go_on: mpsc::Receiver<()>,
        done: Arc<Mutex<bool>>,
    }
    impl Disk for Slow {
        fn name(&self) -> &str {
            "slow"
        }
        fn capacity(&self) -> u64 {
            512
        }
        fn access(&self) -> Access {
            Access::ReadOnly
        }
        fn read(&mut self, _: &[VolatileSlice<'_>], _: u64) -> Result<(), DiskError> {
            self.entered.send(()).unwrap();
            self.go_on.recv().unwrap();
            *self.done.lock().unwrap() = true;
            Ok(())
        }
        fn write(&mut self, _: &[VolatileSlice<'_>], _: u64) -> Result<(), DiskError> {
            Ok(())
        }
        fn flush(&mut self) -> Result<(), DiskError> {
            Ok(())
        }
        fn discard(&mut self, _: u64, _: u64) -> Result<(), DiskError> {
            Ok(())
        }
        fn write_zeroes(&mut self, _: u64, _: u64, _: Space) -> Result<(), DiskError> {
            Ok(())
        }
    }
    let (entered, has_entered) = mpsc::channel();
    let (let_go, go_on) = mpsc::channel();
    let done = Arc::new(Mutex::new(false));
    let disk = Slow { entered, go_on, done: Arc::clone(&done) };
    let event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let device =
        BlockDevice::new(Arc::new(Mutex::new(Box::new(disk))), BlockOptions::default(), handle.clone());
    let mut driver = Driver::new(Box::new(device));
    assert!(driver.negotiate(0));
    let mut queue = driver.queue(0, 16);
    assert!(driver.start());
    driver.put(HEADER, &[0; 16]);
    let chain = [Buffer::readable(HEADER, 16), Buffer::writable(BODY, 512), Buffer::writable(STATUS, 1)];
    queue.add(&chain);
    queue.add(&chain);
    driver.kick(0);
    let io = thread::spawn(move || event_loop.run());
    has_entered.recv().unwrap();
    let reset = thread::spawn(move || {
        driver.write(20, 1, 0);
        driver
    });
    thread::yield_now();
    let_go.send(()).unwrap();
    // Whichever comes first, the second request is served before the reset or never.
    let _ = let_go.send(());
    let mut driver = reset.join().unwrap();
    assert!(*done.lock().unwrap(), "the reset returned while a request was in flight");
    assert_eq!(driver.status(), 0);
    let used = queue.used_index();
    driver.kick(0);
    handle.stop();
    io.join().unwrap().unwrap();
    assert_eq!(queue.used_index(), used, "nothing after the reset");
}
