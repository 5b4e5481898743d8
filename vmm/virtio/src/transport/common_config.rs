//! The common configuration: status, features and queues as the driver sets them up.

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use crate::VirtioInterrupt;
use crate::features::{EVENT_IDX, VERSION_1};

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;
const FAILED: u8 = 128;
const KNOWN: u8 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;

/// What a write asks the transport to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    Reset,
    Activate,
}

#[derive(Clone, Copy, Debug)]
struct QueueSetup {
    max_size: u16,
    size: u16,
    enabled: bool,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl QueueSetup {
    fn new(max_size: u16) -> Self {
        Self { max_size, size: max_size, enabled: false, descriptors: 0, available: 0, used: 0 }
    }
}

#[derive(Debug)]
pub(crate) struct CommonConfig {
    offered: u64,
    accepted: u64,
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
    queues: Vec<QueueSetup>,
}

impl CommonConfig {
    pub(crate) fn new(offered: u64, queue_sizes: &[u16]) -> Self {
        Self {
            offered,
            accepted: 0,
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            queue_select: 0,
            queues: queue_sizes.iter().map(|&size| QueueSetup::new(size)).collect(),
        }
    }

    pub(crate) fn negotiated(&self) -> u64 {
        self.accepted
    }

    pub(crate) fn is_active(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    pub(crate) fn reset(&mut self) {
        self.accepted = 0;
        self.status = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = QueueSetup::new(queue.max_size);
        }
    }

    /// The enabled queues; `None` when one of them is impossible.
    pub(crate) fn build_queues(&self, memory: &GuestMemoryMmap) -> Option<Vec<(u16, Queue)>> {
        let enabled = (0..).zip(&self.queues).filter(|(_, setup)| setup.enabled);
        enabled.map(|(index, setup)| Some((index, self.build(setup, memory)?))).collect()
    }

    fn build(&self, setup: &QueueSetup, memory: &GuestMemoryMmap) -> Option<Queue> {
        let mut queue = Queue::new(setup.max_size).ok()?;
        queue.try_set_size(setup.size).ok()?;
        queue.try_set_desc_table_address(vm_memory::GuestAddress(setup.descriptors)).ok()?;
        queue.try_set_avail_ring_address(vm_memory::GuestAddress(setup.available)).ok()?;
        queue.try_set_used_ring_address(vm_memory::GuestAddress(setup.used)).ok()?;
        queue.set_event_idx(self.accepted & EVENT_IDX != 0);
        queue.set_ready(true);
        // The last: with the event index each ring has one more field at its end.
        let avail_end = setup.available.checked_add(6 + 2 * u64::from(setup.size))?;
        let used_end = setup.used.checked_add(6 + 8 * u64::from(setup.size))?;
        let inside = |end: u64| {
            vm_memory::GuestMemoryBackend::address_in_range(memory, vm_memory::GuestAddress(end - 1))
        };
        (queue.is_valid(memory) && inside(avail_end) && inside(used_end)).then_some(queue)
    }

    pub(crate) fn read(&self, offset: u64, data: &mut [u8], interrupt: &VirtioInterrupt) {
        let queue = self.queues.get(usize::from(self.queue_select));
        let address = |field: fn(&QueueSetup) -> u64| queue.map_or(0, field);
        let value = match (offset, data.len()) {
            (0, 4) => u64::from(self.device_feature_select),
            (4, 4) => half(self.offered, self.device_feature_select),
            (8, 4) => u64::from(self.driver_feature_select),
            (12, 4) => half(self.accepted, self.driver_feature_select),
            (16, 2) => u64::from(interrupt.config_vector()),
            (18, 2) => self.queues.len() as u64,
            (20, 1) => u64::from(self.status | if interrupt.is_broken() { NEEDS_RESET } else { 0 }),
            (21, 1) => u64::from(interrupt.generation()),
            (22, 2) => u64::from(self.queue_select),
            (24, 2) => queue.map_or(0, |queue| u64::from(queue.size)),
            (26, 2) => u64::from(interrupt.queue_vector(self.queue_select)),
            (28, 2) => queue.map_or(0, |queue| u64::from(queue.enabled)),
            (30, 2) => queue.map_or(0, |_| u64::from(self.queue_select)),
            (32, 4 | 8) => address(|queue| queue.descriptors),
            (36, 4) => address(|queue| queue.descriptors) >> 32,
            (40, 4 | 8) => address(|queue| queue.available),
            (44, 4) => address(|queue| queue.available) >> 32,
            (48, 4 | 8) => address(|queue| queue.used),
            (52, 4) => address(|queue| queue.used) >> 32,
            _ => 0,
        };
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8], interrupt: &VirtioInterrupt) -> Effect {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        let value = u64::from_le_bytes(bytes);
        let [b0, b1, b2, b3, ..] = bytes;
        let (byte, word, dword) = (b0, u16::from_le_bytes([b0, b1]), u32::from_le_bytes([b0, b1, b2, b3]));
        match (offset, data.len()) {
            (0, 4) => self.device_feature_select = dword,
            (8, 4) => self.driver_feature_select = dword,
            (12, 4) if self.status & FEATURES_OK == 0 => {
                set_half(&mut self.accepted, self.driver_feature_select, dword);
            }
            (16, 2) => interrupt.set_config_vector(word),
            (20, 1) => return self.write_status(byte),
            (22, 2) => self.queue_select = word,
            (26, 2) => interrupt.set_queue_vector(self.queue_select, word),
            _ => self.write_queue(offset, data.len(), value),
        }
        Effect::None
    }

    /// Registers of the selected queue. Once it is enabled only a reset changes them.
    fn write_queue(&mut self, offset: u64, len: usize, value: u64) {
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        if queue.enabled || self.status & DRIVER_OK != 0 {
            return;
        }
        match (offset, len) {
            (24, 2) => queue.size = u16::try_from(value).unwrap_or(0),
            (28, 2) => queue.enabled = value == 1,
            (32, 8) => queue.descriptors = value,
            (40, 8) => queue.available = value,
            (48, 8) => queue.used = value,
            (32, 4) => set_low(&mut queue.descriptors, value),
            (36, 4) => set_high(&mut queue.descriptors, value),
            (40, 4) => set_low(&mut queue.available, value),
            (44, 4) => set_high(&mut queue.available, value),
            (48, 4) => set_low(&mut queue.used, value),
            (52, 4) => set_high(&mut queue.used, value),
            _ => {}
        }
    }

    /// Status bits are only ever added, in the order of the standard; zero resets.
    fn write_status(&mut self, status: u8) -> Effect {
        let status = status & KNOWN;
        if status == 0 {
            return Effect::Reset;
        }
        if self.status & !status & KNOWN != 0 {
            return Effect::None;
        }
        let added = status & !self.status;
        self.status |= status & (ACKNOWLEDGE | DRIVER | FAILED);
        let acceptable = self.accepted & !self.offered == 0 && self.accepted & VERSION_1 != 0;
        if added & FEATURES_OK != 0 && acceptable {
            self.status |= FEATURES_OK;
        }
        let ready = ACKNOWLEDGE | DRIVER | FEATURES_OK;
        if added & DRIVER_OK != 0 && self.status & (ready | FAILED) == ready {
            self.status |= DRIVER_OK;
            return Effect::Activate;
        }
        Effect::None
    }
}

fn half(value: u64, select: u32) -> u64 {
    match select {
        0 => value & 0xffff_ffff,
        1 => value >> 32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, select: u32, half: u32) {
    match select {
        0 => set_low(value, half.into()),
        1 => set_high(value, half.into()),
        _ => {}
    }
}

fn set_low(value: &mut u64, low: u64) {
    *value = (*value & !0xffff_ffff) | (low & 0xffff_ffff);
}

fn set_high(value: &mut u64, high: u64) {
    *value = (*value & 0xffff_ffff) | (high << 32);
}
