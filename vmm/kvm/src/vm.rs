//! The virtual machine: its file, its memory slots, its interrupt controllers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::{
    CpuId, KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X2APIC_API, KVM_CAP_X86_DISABLE_EXITS, KVM_MAX_CPUID_ENTRIES,
    KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS, KVM_X86_DISABLE_EXITS_PAUSE,
    kvm_create_device, kvm_device_type_KVM_DEV_TYPE_VFIO, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, DeviceFd, Kvm, VmFd};
use vmm_memory::{GuestRam, layout};

use crate::apic_id::ApicId;
use crate::cpuid::{CpuidProfile, GuestCpuid, Hints};
use crate::error::KvmError;
use crate::initial::ApicMode;
use crate::router::KvmRouter;
use crate::slots::KvmSlots;
use crate::vcpu::Vcpu;

const API_VERSION: i32 = 12;
/// Pins of the IOAPIC, whose GSIs come first.
const IOAPIC_PINS: u32 = 24;
/// Highest APIC id that xAPIC mode can hold; 255 is the broadcast.
const HIGHEST_XAPIC_ID: u32 = 254;
/// Tries at creating a VM that a signal of the kernel's own interrupts.
const CREATE_TRIES: u32 = 5;

/// What must be there, and its name for people.
const NEEDED: [(Cap, &str); 8] = [
    (Cap::UserMemory, "user memory regions"),
    (Cap::SplitIrqchip, "the split interrupt controller"),
    (Cap::SignalMsi, "MSI injection"),
    (Cap::IrqRouting, "interrupt routing"),
    (Cap::Irqfd, "irqfd"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::ImmediateExit, "immediate exit"),
    (Cap::TscDeadlineTimer, "the TSC deadline timer"),
];

/// A virtual machine.
#[derive(Debug)]
pub struct KvmVm {
    vm: Arc<VmFd>,
    router: Arc<KvmRouter>,
    slots: Arc<KvmSlots>,
    supported: CpuId,
    apic_mode: ApicMode,
    msrs: Vec<u32>,
    // Slots refer to this memory until the VM's file is closed.
    _ram: Option<Arc<GuestRam>>,
}

impl KvmVm {
    /// Opens KVM, checks what it can do, and creates an empty VM for `vcpus` vCPUs.
    ///
    /// The order matters:
    /// 1. The pages that KVM uses for itself go into a hole of the memory map before the first
    ///    vCPU exists; Intel processors without unrestricted guests fail to start one else.
    /// 2. The interrupt controller comes before the vCPUs, whose local APICs it includes. It is the
    ///    split one: no PIT, so no kernel thread of the VM's outside our control.
    ///
    /// # Errors
    /// [`KvmError`].
    pub fn new(vcpus: usize, highest_id: ApicId, hints: Hints) -> Result<Self, KvmError> {
        let kvm = open()?;
        check(&kvm, vcpus, highest_id)?;
        let vm = create(&kvm)?;
        let tss = usize::try_from(layout::KVM_TSS.0).unwrap_or_default();
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP.0)
            .map_err(KvmError::request("place the identity map"))?;
        vm.set_tss_address(tss).map_err(KvmError::request("place the task state"))?;
        enable(&vm, KVM_CAP_SPLIT_IRQCHIP, IOAPIC_PINS.into(), "create the interrupt controller")?;
        let x2apic = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
        enable(&vm, KVM_CAP_X2APIC_API, x2apic.into(), "enable wide APIC ids")?;
        if hints == Hints::Dedicated {
            keep_spinning_inside(&kvm, &vm)?;
        }
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(KvmError::request("say which CPUID it supports"))?;
        let msrs =
            kvm.get_msr_index_list().map_err(KvmError::request("list its model-specific registers"))?;
        let vm = Arc::new(vm);
        let router = Arc::new(KvmRouter::new(Arc::clone(&vm), IOAPIC_PINS));
        let slots = Arc::new(KvmSlots::new(Arc::clone(&vm), kvm.get_nr_memslots()));
        let apic_mode = if highest_id.0 > HIGHEST_XAPIC_ID { ApicMode::X2Apic } else { ApicMode::XApic };
        let msrs = msrs.as_slice().to_vec();
        Ok(Self { vm, router, slots, supported, apic_mode, msrs, _ram: None })
    }

    /// Gives the VM its memory: a slot per region. Call once.
    ///
    /// # Errors
    /// [`KvmError::Request`].
    pub fn set_memory(&mut self, ram: Arc<GuestRam>) -> Result<(), KvmError> {
        for (slot, region) in (0u32..).zip(ram.regions()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.gpa.0,
                memory_size: region.bytes,
                userspace_addr: region.hva.0,
            };
            // SAFETY: the region is mapped, belongs to the guest alone, and stays mapped
            // until this VM is gone: `_ram` keeps it, and the VM's file is closed first.
            unsafe { self.vm.set_user_memory_region(region) }
                .map_err(KvmError::request("take the guest's memory"))?;
        }
        self._ram = Some(ram);
        Ok(())
    }

    /// Creates a vCPU; its thread takes it from here.
    ///
    /// # Errors
    /// [`KvmError`].
    pub fn create_vcpu(&self, index: u32, id: ApicId, profile: &CpuidProfile) -> Result<Vcpu, KvmError> {
        let fd = self
            .vm
            .create_vcpu(u64::from(id.0))
            .map_err(KvmError::vcpu(index, "create the virtual processor"))?;
        let tsc_khz = fd.get_tsc_khz().ok();
        let cpuid = GuestCpuid::new(&self.supported, profile, id, tsc_khz);
        Vcpu::new(fd, index, &cpuid, self.apic_mode, &self.msrs)
    }

    /// MSI routes and doorbells.
    #[must_use]
    pub fn router(&self) -> Arc<KvmRouter> {
        Arc::clone(&self.router)
    }

    /// Memory slots of devices.
    #[must_use]
    pub fn slots(&self) -> Arc<KvmSlots> {
        Arc::clone(&self.slots)
    }

    /// What tells KVM of the VFIO devices that the guest has. One per VM, and only where there is one.
    ///
    /// # Errors
    /// [`KvmError::Request`].
    pub fn vfio(&self) -> Result<DeviceFd, KvmError> {
        let mut device =
            kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, ..kvm_create_device::default() };
        self.vm
            .create_device(&mut device)
            .map_err(KvmError::request("keep account of devices passed through"))
    }

    /// Physical address bits that the guest sees.
    #[must_use]
    pub fn physical_bits(&self) -> u8 {
        GuestCpuid::physical_bits(&self.supported)
    }
}

impl Drop for KvmVm {
    fn drop(&mut self) {
        // Slots are deleted while the memory behind them is still mapped: routers and
        // devices may hold the VM's file longer than this value lives.
        let slots = self._ram.as_ref().map_or(0, |ram| ram.regions().len());
        for slot in 0..u32::try_from(slots).unwrap_or(0) {
            let empty = kvm_userspace_memory_region { slot, ..kvm_userspace_memory_region::default() };
            // SAFETY: deleting a slot takes memory away from the guest, whose vCPUs do not run any more.
            let _ = unsafe { self.vm.set_user_memory_region(empty) };
        }
    }
}

fn open() -> Result<Kvm, KvmError> {
    Kvm::new().map_err(|e| {
        let e = io::Error::from(e);
        match e.kind() {
            io::ErrorKind::NotFound => KvmError::Missing,
            io::ErrorKind::PermissionDenied => KvmError::NoPermission,
            _ if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => KvmError::Missing,
            _ => KvmError::Open(e),
        }
    })
}

fn check(kvm: &Kvm, vcpus: usize, highest_id: ApicId) -> Result<(), KvmError> {
    if kvm.get_api_version() != API_VERSION {
        return Err(KvmError::Lacks("its stable interface (version 12)"));
    }
    if let Some((_, name)) = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        return Err(KvmError::Lacks(name));
    }
    let (most, most_ids) = (kvm.get_max_vcpus(), kvm.get_max_vcpu_id());
    if vcpus > most || highest_id.0 as usize >= most_ids {
        return Err(KvmError::TooManyVcpus { vcpus, highest_id: highest_id.0, most, most_ids });
    }
    Ok(())
}

/// On busy hosts VM creation fails with EINTR though no signal is pending for us: the kernel
/// starts a worker thread meanwhile. It succeeds when tried again.
fn create(kvm: &Kvm) -> Result<VmFd, KvmError> {
    let mut tries = 0;
    loop {
        match kvm.create_vm() {
            Err(e) if e.errno() == libc::EINTR && tries < CREATE_TRIES => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(1 << tries));
            }
            created => return created.map_err(KvmError::request("create a virtual machine")),
        }
    }
}

/// A vCPU with a CPU to itself gains nothing from leaving the guest while it spins on a lock: the holder
/// is not waiting for its CPU. Halting still leaves: a vCPU that never gives its CPU back would, in a
/// real-time class, starve the host's own threads there.
fn keep_spinning_inside(kvm: &Kvm, vm: &VmFd) -> Result<(), KvmError> {
    let offered = kvm.check_extension_raw(KVM_CAP_X86_DISABLE_EXITS.into());
    if u32::try_from(offered).is_ok_and(|o| o & KVM_X86_DISABLE_EXITS_PAUSE != 0) {
        let pause = KVM_X86_DISABLE_EXITS_PAUSE.into();
        enable(vm, KVM_CAP_X86_DISABLE_EXITS, pause, "let vCPUs spin without leaving the guest")?;
    }
    Ok(())
}

fn enable(vm: &VmFd, cap: u32, argument: u64, action: &'static str) -> Result<(), KvmError> {
    let cap = kvm_enable_cap { cap, args: [argument, 0, 0, 0], ..kvm_enable_cap::default() };
    vm.enable_cap(&cap).map_err(KvmError::request(action))
}
