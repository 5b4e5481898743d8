//! A made-up host function, for tests and fuzzing: registers in memory, and a record of what was asked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_bus::{AttachError, Gpa, Gsi, MsiMessage, MsiRouter};
use vmm_memory::{DeviceAccess, DeviceMemory, MemorySlots, SlotId};
use vmm_pci::BarIndex;
use vmm_sys_util::eventfd::EventFd;

use crate::host::{Area, HostBar, HostFunction, Notice, Region, VectorKind};

/// What a fake function holds.
#[derive(Debug, Default)]
pub struct State {
    /// Config space.
    pub config: Vec<u8>,
    /// The vectors set up of each kind: whether each has an event.
    pub armed: BTreeMap<&'static str, Vec<bool>>,
    /// Resets so far.
    pub resets: u32,
    /// Everything fails from now on.
    pub dead: bool,
}

/// A fake function; clones are the same one.
#[derive(Clone, Debug)]
pub struct FakeFunction {
    state: Arc<Mutex<State>>,
    bars: [HostBar; 6],
    memory: Arc<Mutex<File>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(kind: VectorKind) -> &'static str {
    match kind {
        VectorKind::Msi => "msi",
        VectorKind::Msix => "msix",
    }
}

impl FakeFunction {
    /// With this config space and these BARs, whose bytes are those of one file, 16 MiB apart.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn new(config: Vec<u8>, bars: [HostBar; 6], memory: File) -> io::Result<Self> {
        memory.set_len(6 << 24)?;
        let state = Arc::new(Mutex::new(State { config, ..State::default() }));
        Ok(Self { state, bars, memory: Arc::new(Mutex::new(memory)) })
    }

    /// What it holds now.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if state.dead { Err(io::ErrorKind::NotConnected.into()) } else { Ok(state) }
    }

    fn seek(&self, bar: BarIndex, offset: u64, bytes: usize) -> io::Result<MutexGuard<'_, File>> {
        let size = self.bars.get(usize::from(bar.get())).map_or(0, |b| b.bytes);
        if offset.checked_add(bytes as u64).is_none_or(|end| end > size.min(1 << 24)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut memory = lock(&self.memory);
        memory.seek(SeekFrom::Start((u64::from(bar.get()) << 24) + offset))?;
        Ok(memory)
    }
}

fn range(offset: u64, bytes: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    Some(start..start.checked_add(bytes)?)
}

impl HostFunction for FakeFunction {
    fn bars(&self) -> [HostBar; 6] {
        self.bars.clone()
    }

    fn config_bytes(&self) -> u64 {
        lock(&self.state).config.len() as u64
    }

    fn read(&self, region: Region, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let state = self.alive()?;
        match region {
            Region::Config => {
                let bytes = range(offset, data.len()).and_then(|r| state.config.get(r));
                data.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Region::Bar(bar) => self.seek(bar, offset, data.len())?.read_exact(data),
        }
    }

    fn write(&self, region: Region, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.alive()?;
        match region {
            Region::Config => {
                let bytes = range(offset, data.len()).and_then(|r| state.config.get_mut(r));
                bytes.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
                Ok(())
            }
            Region::Bar(bar) => self.seek(bar, offset, data.len())?.write_all(data),
        }
    }

    fn map(&self, bar: BarIndex, area: Area) -> io::Result<DeviceMemory> {
        let memory = lock(&self.memory);
        DeviceMemory::map(
            memory.as_fd(),
            (u64::from(bar.get()) << 24) + area.offset,
            area.bytes,
            DeviceAccess::ReadWrite,
        )
    }

    fn vectors(&self, _kind: VectorKind) -> u32 {
        32
    }

    fn arm(&self, kind: VectorKind, count: u32) -> io::Result<()> {
        let count = usize::try_from(count).unwrap_or(0);
        self.alive()?.armed.insert(name(kind), vec![false; count]);
        Ok(())
    }

    fn attach(&self, kind: VectorKind, vector: u32, _event: &EventFd) -> io::Result<()> {
        let mut state = self.alive()?;
        let vectors = state.armed.get_mut(name(kind));
        let vector = vectors.and_then(|v| v.get_mut(usize::try_from(vector).unwrap_or(usize::MAX)));
        *vector.ok_or(io::ErrorKind::InvalidInput)? = true;
        Ok(())
    }

    fn disarm(&self, kind: VectorKind) -> io::Result<()> {
        let gone = self.alive()?.armed.remove(name(kind));
        gone.map(drop).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn watch(&self, _notice: Notice, _event: &EventFd) -> io::Result<()> {
        self.alive().map(drop)
    }

    fn can_reset(&self) -> bool {
        true
    }

    fn reset(&self) -> io::Result<()> {
        self.alive()?.resets += 1;
        Ok(())
    }
}

/// Takes every route and slot, and remembers them.
#[derive(Debug, Default)]
pub struct FakeMachine {
    /// Routes that are live.
    pub routes: Mutex<BTreeMap<u32, MsiMessage>>,
    /// GSIs that are given out.
    pub gsis: Mutex<BTreeMap<u32, bool>>,
    /// Where memory is shown.
    pub shown: Mutex<BTreeMap<u32, (Gpa, u64)>>,
}

fn wrong(object: &str) -> AttachError {
    AttachError {
        action: "do what makes no sense",
        object: object.to_owned(),
        source: io::ErrorKind::InvalidInput.into(),
    }
}

impl MsiRouter for FakeMachine {
    fn allocate(&self) -> Result<Gsi, AttachError> {
        let mut gsis = lock(&self.gsis);
        let free = (24..4096).find(|gsi| !gsis.contains_key(gsi)).ok_or_else(|| wrong("no GSI is left"))?;
        gsis.insert(free, true);
        Ok(Gsi(free))
    }

    fn release(&self, gsi: Gsi) {
        lock(&self.gsis).remove(&gsi.0);
    }

    fn unmask(&self, gsi: Gsi, message: MsiMessage, _event: &EventFd) -> Result<(), AttachError> {
        match lock(&self.routes).insert(gsi.0, message) {
            None => Ok(()),
            Some(_) => Err(wrong("unmasked twice")),
        }
    }

    fn mask(&self, gsi: Gsi, _event: &EventFd) -> Result<(), AttachError> {
        lock(&self.routes).remove(&gsi.0).map(drop).ok_or_else(|| wrong("masked twice"))
    }

    fn send(&self, _message: MsiMessage) -> Result<(), AttachError> {
        Ok(())
    }
}

impl MemorySlots for FakeMachine {
    fn add(&self, at: Gpa, memory: Arc<DeviceMemory>) -> Result<SlotId, AttachError> {
        let mut shown = lock(&self.shown);
        let end = at.0.checked_add(memory.bytes()).ok_or_else(|| wrong("past the end of addresses"))?;
        if shown.values().any(|(start, bytes)| start.0 < end && at.0 < start.0 + bytes) {
            return Err(wrong("slots overlap"));
        }
        let slot = (0..).find(|slot| !shown.contains_key(slot)).unwrap_or(0);
        shown.insert(slot, (at, memory.bytes()));
        Ok(SlotId(slot))
    }

    fn remove(&self, slot: SlotId) -> Result<(), AttachError> {
        lock(&self.shown).remove(&slot.0).map(drop).ok_or_else(|| wrong("no such slot"))
    }
}
