use std::sync::Mutex;

use super::*;
use crate::{BarIndex, ClassCode, DeviceIds, RegisterOffset};

fn header() -> ConfigSpace {
    let ids = DeviceIds { vendor: 1, device: 2, revision: 1, subsystem_vendor: 2, subsystem: 3 };
    ConfigSpace::new(ids, ClassCode { class: 2, subclass: 0, interface: 0 })
}

#[derive(Debug, Default)]
struct Router {
    calls: Mutex<Vec<String>>,
    next: Mutex<u32>,
    full: bool,
}

impl Router {
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl MsiRouter for Router {
    fn allocate(&self) -> Result<Gsi, AttachError> {
        if self.full {
            let source = std::io::ErrorKind::Other.into();
            return Err(AttachError { action: "allocate", object: "a GSI".into(), source });
        }
        let mut next = self.next.lock().unwrap();
        *next += 1;
        self.calls.lock().unwrap().push(format!("allocate {next}"));
        Ok(Gsi(*next))
    }
    fn release(&self, gsi: Gsi) {
        self.calls.lock().unwrap().push(format!("release {gsi}"));
    }
    fn unmask(&self, gsi: Gsi, message: MsiMessage, _event: &EventFd) -> Result<(), AttachError> {
        self.calls.lock().unwrap().push(format!("unmask {gsi} {:#x} {}", message.address, message.data));
        Ok(())
    }
    fn mask(&self, gsi: Gsi, _event: &EventFd) -> Result<(), AttachError> {
        self.calls.lock().unwrap().push(format!("mask {gsi}"));
        Ok(())
    }
    fn send(&self, _message: MsiMessage) -> Result<(), AttachError> {
        Ok(())
    }
}

struct Msix {
    router: Arc<Router>,
    table: MsixTable,
    config: ConfigSpace,
}

impl Msix {
    fn new(vectors: u16) -> Self {
        let router = Arc::new(Router::default());
        let mut table = MsixTable::new(Arc::clone(&router) as Arc<dyn MsiRouter>, vectors).unwrap();
        let mut config = header();
        table.announce(&mut config, BarIndex::FIRST, 0x4000, 0x6000).unwrap();
        Self { router, table, config }
    }

    fn control(&mut self, value: u16) {
        self.config.write(RegisterOffset(0x42), &value.to_le_bytes());
        self.table.follow_config(&self.config);
    }

    fn entry(&mut self, vector: u64, data: u32, masked: u32) {
        self.table.table_write(vector * 16, &0xfee0_0000_u32.to_le_bytes());
        self.table.table_write(vector * 16 + 8, &data.to_le_bytes());
        self.table.table_write(vector * 16 + 12, &masked.to_le_bytes());
    }

    fn pending(&self) -> u8 {
        let mut byte = [0];
        self.table.pending_read(0, &mut byte);
        byte[0]
    }
}

const ENABLE: u16 = 0x8000;
const MASK_ALL: u16 = 0x4000;

#[test]
fn a_gsi_is_taken_at_the_first_unmasking_only() {
    let mut msix = Msix::new(4);
    assert_eq!(msix.config.word(0x42), 3);
    msix.control(ENABLE | MASK_ALL);
    msix.entry(1, 7, 0);
    assert_eq!(msix.router.calls(), [""; 0], "the function is masked");
    msix.control(ENABLE);
    assert_eq!(msix.router.calls(), ["allocate 1", "unmask 1 0xfee00000 7"]);
    msix.entry(1, 7, 1);
    msix.entry(1, 7, 0);
    assert_eq!(msix.router.calls(), ["mask 1", "unmask 1 0xfee00000 7"]);
    msix.control(0);
    assert_eq!(msix.router.calls(), ["mask 1"]);
    msix.table.reset();
    assert_eq!(msix.router.calls(), ["release 1"]);
}

#[test]
fn a_message_that_changes_while_unmasked_takes_a_new_route() {
    let mut msix = Msix::new(2);
    msix.control(ENABLE);
    msix.entry(0, 1, 0);
    msix.router.calls();
    msix.table.table_write(8, &9_u32.to_le_bytes());
    assert_eq!(msix.router.calls(), ["mask 1", "unmask 1 0xfee00000 9"]);
    let mut both = 0x1_fee0_1000_u64.to_le_bytes();
    msix.table.table_write(0, &both);
    assert_eq!(msix.router.calls(), ["mask 1", "unmask 1 0x1fee01000 9"]);
    msix.table.table_read(0, &mut both);
    assert_eq!(u64::from_le_bytes(both), 0x1_fee0_1000);
}

#[test]
fn a_signal_while_masked_is_pending_and_kept() {
    let mut msix = Msix::new(3);
    msix.control(ENABLE);
    let event = msix.table.event(VectorIndex(2)).unwrap();
    event.write(1).unwrap();
    assert_eq!(msix.pending(), 0b100);
    assert_eq!(msix.pending(), 0b100, "looking does not take it");
    msix.entry(2, 5, 0);
    assert_eq!(msix.pending(), 0, "the kernel delivers it");
    assert_eq!(event.read().unwrap(), 1, "the signal is still in the event for it");
}

#[test]
fn a_refused_route_is_counted_and_asked_for_again() {
    let router = Arc::new(Router { full: true, ..Router::default() });
    let mut table = MsixTable::new(router, 1).unwrap();
    let mut config = header();
    table.announce(&mut config, BarIndex::FIRST, 0, 0x800).unwrap();
    config.write(RegisterOffset(0x42), &ENABLE.to_le_bytes());
    table.follow_config(&config);
    table.table_write(12, &[0; 4]);
    assert_eq!(table.faults(), 1);
    table.table_write(12, &[0; 4]);
    assert_eq!(table.faults(), 2);
}

#[test]
fn odd_table_accesses_do_nothing() {
    let mut msix = Msix::new(1);
    msix.control(ENABLE);
    for (offset, len) in [(12, 1), (13, 4), (10, 2), (4, 8), (16, 4), (u64::MAX - 3, 4)] {
        msix.table.table_write(offset, &vec![0; len]);
    }
    assert_eq!(msix.router.calls(), [""; 0]);
    let mut data = [0; 8];
    msix.table.table_read(u64::MAX - 7, &mut data);
    assert_eq!(data, [0xff; 8]);
    assert!(MsixTable::new(Arc::new(Router::default()), 0).is_err());
}
