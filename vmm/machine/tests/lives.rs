//! Whole lives of a machine: tiny kernels run under this computer's KVM, where it has one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics fails")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_acpi::platform;
use vmm_block::{Access, DiskOptions};
use vmm_machine::{
    ArmError, ArmedMachine, CellConfig, ConsoleConfig, DiskConfig, GuestEnd, Hints, IoThreadConfig, Kernel,
    KernelFiles, MachineConfig, ReadKernel, Rng, Role, RunningMachine, VcpuConfig,
};

const LOAD: u32 = 0x10_0000;
/// Memory that survives a reboot of the guest and that no kernel is loaded to.
const COUNTER: u32 = 0x20_0000;
const POWER_OFF: u8 = 1 << 5 | platform::SLEEP_TYPE_S5 << 2;
/// How long anything may take before it counts as hung.
const HUNG: Duration = Duration::from_secs(30);

/// `mov dx, port; mov al, value; out dx, al`
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

fn power_off() -> Vec<u8> {
    out(platform::POWER_PORT + platform::SLEEP_CONTROL, POWER_OFF)
}

fn print(text: &[u8]) -> Vec<u8> {
    text.iter().flat_map(|byte| out(platform::SERIAL_PORT, *byte)).collect()
}

/// `mov eax, 0x80000011; mov cr0, eax`: paging without tables, and no table to handle that.
fn triple_fault() -> Vec<u8> {
    vec![0xb8, 0x11, 0, 0, 0x80, 0x0f, 0x22, 0xc0]
}

/// Counts boots; goes on after the code `before` at the third.
fn at_the_third_boot(before: &[u8]) -> Vec<u8> {
    let [a, b, c, d] = COUNTER.to_le_bytes();
    let len = u8::try_from(before.len()).unwrap();
    // inc dword [counter]; cmp dword [counter], 3; jae over
    let head = [0xff, 0x05, a, b, c, d, 0x83, 0x3d, a, b, c, d, 3, 0x73, len];
    [&head, before].concat()
}

/// `jmp $`
const SPIN: [u8; 2] = [0xeb, 0xfe];

/// An ELF image with a PVH entry (xen/include/public/elfnote.h) at the start of `code`.
fn kernel(code: &[u8]) -> File {
    let half = |n: u16| n.to_le_bytes().to_vec();
    let word = |n: u32| n.to_le_bytes().to_vec();
    let long = |n: u64| n.to_le_bytes().to_vec();
    let (headers, note_len) = (64 + 2 * 56, 20);
    let (note_at, code_at) = (headers, 0x100);
    let segment = |kind, at: u64, address: u32, len: u64| {
        let parts = [word(kind), word(7), long(at), long(address.into()), long(address.into()), long(len)];
        [parts.concat(), long(len), long(4)].concat()
    };
    let image_len = 0x1000u64;
    let mut image = [
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        [half(2), half(62), word(1), long(LOAD.into()), long(64), long(0), word(0)].concat(),
        [half(64), half(56), half(2), half(0), half(0), half(0)].concat(),
        segment(1, code_at, LOAD, image_len),
        segment(4, note_at, 0, note_len),
        [word(4), word(4), word(18), b"Xen\0".to_vec(), word(LOAD)].concat(),
    ]
    .concat();
    image.resize(usize::try_from(code_at).unwrap(), 0);
    image.extend(code);
    image.resize(usize::try_from(code_at + image_len).unwrap(), 0);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&image).unwrap();
    file
}

/// A bzImage whose 64-bit entry is `code` (Documentation/arch/x86/boot.rst).
fn bzimage(code: &[u8]) -> File {
    let mut image = vec![0; 2 * 512];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x230, &0x20_0000_u32.to_le_bytes());
    put(0x236, &1_u16.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x258, &u64::from(LOAD).to_le_bytes());
    put(0x260, &0x1000_u32.to_le_bytes());
    image.extend([0; 0x200]);
    image.extend(code);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&image).unwrap();
    file
}

fn files(kernel: File) -> Kernel {
    Kernel::Files(KernelFiles { kernel, initrd: None, command_line: String::new() })
}

/// Boots another kernel each time it is asked.
#[derive(Debug)]
struct Disk(Vec<File>);

impl ReadKernel for Disk {
    fn read(&mut self) -> Result<KernelFiles, Box<dyn std::error::Error + Send + Sync>> {
        let kernel = self.0.pop().ok_or("the disk is empty")?;
        Ok(KernelFiles { kernel, initrd: None, command_line: String::new() })
    }
}

fn config(code: &[u8], cores: u32, output: Option<OwnedFd>) -> MachineConfig {
    let vcpu = |core| VcpuConfig { socket: 0, core, thread: 0, cell: 0, cpus: vec![0], fifo: None };
    MachineConfig {
        sockets: 1,
        cores,
        threads: 1,
        vcpus: (0..cores).map(vcpu).collect(),
        cells: vec![CellConfig {
            memory_bytes: 8 << 20,
            page_size: 4096,
            host_node: None,
            distances: vec![10],
        }],
        kernel: files(kernel(code)),
        disks: Vec::new(),
        nets: Vec::new(),
        devices: Vec::new(),
        iommu: None,
        rng: Rng::Present,
        console: ConsoleConfig { output, input: None },
        io_threads: vec![IoThreadConfig { id: 7, cpus: vec![0] }],
        emulator_cpus: vec![0],
        hints: Hints::None,
    }
}

/// An armed machine, or `None` with the reason printed.
fn arm(config: MachineConfig) -> Option<ArmedMachine> {
    match ArmedMachine::arm(config, &mut |_, _| ()) {
        Ok(machine) => Some(machine),
        Err(ArmError::Kvm(e)) => {
            println!("skipped: this computer runs no guests: {e}");
            None
        }
        Err(e) => panic!("{e:?}"),
    }
}

fn end(machine: &RunningMachine) -> GuestEnd {
    let timeout = PollTimeout::try_from(HUNG).unwrap();
    assert_eq!(poll(&mut [PollFd::new(machine.ended_fd(), PollFlags::POLLIN)], timeout), Ok(1), "it hangs");
    machine.end().unwrap()
}

/// How a life ended, what the guest printed, how often it rebooted.
type Life = (GuestEnd, String, u64);

/// Runs a kernel to its end.
fn life(code: &[u8], cores: u32) -> Option<Life> {
    life_of(|output| config(code, cores, Some(output)))
}

fn life_of(config: impl FnOnce(OwnedFd) -> MachineConfig) -> Option<Life> {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let machine = arm(config(writer))?.run();
    let how = end(&machine);
    let reboots = machine.stats().reboots;
    drop(machine);
    if let GuestEnd::Failed(why) = &how
        && why.contains("KVM")
    {
        println!("skipped: this computer's KVM cannot run such a guest: {why}");
        return None;
    }
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).unwrap();
    Some((how, text, reboots))
}

#[test]
fn a_guest_prints_and_switches_itself_off() {
    let code = [print(b"hello\n"), power_off(), SPIN.to_vec()].concat();
    let Some(life) = life(&code, 1) else { return };
    assert_eq!(life, (GuestEnd::PoweredOff, "hello\n".to_owned(), 0));
}

#[test]
fn a_bzimage_is_entered_in_64_bit_mode() {
    // mov eax, '1'; then, by mode, a nop with a prefix or `dec eax` and a nop; mov dx, port; out dx, al
    let [low, high] = platform::SERIAL_PORT.to_le_bytes();
    let mode = vec![0xb8, b'1', 0, 0, 0, 0x48, 0x90, 0x66, 0xba, low, high, 0xee];
    let code = [mode, power_off(), SPIN.to_vec()].concat();
    let with_image = |output| MachineConfig { kernel: files(bzimage(&code)), ..config(&[], 1, Some(output)) };
    let Some(life) = life_of(with_image) else { return };
    assert_eq!(life, (GuestEnd::PoweredOff, "1".to_owned(), 0));
}

#[test]
fn a_kernel_is_read_anew_at_each_reboot_and_a_disk_without_one_ends_the_guest() {
    let reset = || out(platform::POWER_PORT + platform::RESET, platform::RESET_VALUE);
    let image = |word: &[u8]| kernel(&[print(word), reset(), SPIN.to_vec()].concat());
    let disk = || Disk(vec![image(b"new"), image(b"old ")]);
    let with_disk =
        |output| MachineConfig { kernel: Kernel::Read(Box::new(disk())), ..config(&[], 1, Some(output)) };
    let Some((end, printed, reboots)) = life_of(with_disk) else { return };
    assert_eq!((printed.as_str(), reboots), ("old new", 1));
    assert!(matches!(&end, GuestEnd::Failed(why) if why.ends_with("the disk is empty")), "{end:?}");
}

#[test]
fn each_way_to_reset_starts_the_guest_again_in_place() {
    let ways =
        [out(platform::POWER_PORT + platform::RESET, platform::RESET_VALUE), out(0x64, 0xfe), triple_fault()];
    for way in ways {
        let again = [print(b"again "), way, SPIN.to_vec()].concat();
        let code = [at_the_third_boot(&again), print(b"done"), power_off(), SPIN.to_vec()].concat();
        let Some(life) = life(&code, 4) else { return };
        assert_eq!(life, (GuestEnd::PoweredOff, "again again done".to_owned(), 2));
    }
}

#[test]
fn a_guest_that_only_resets_itself_has_crashed() {
    let Some((how, text, reboots)) = life(&[print(b"x"), triple_fault()].concat(), 2) else { return };
    assert!(matches!(how, GuestEnd::Crashed(_)), "{how:?}");
    assert_eq!((text.len(), reboots), (10, 9));
}

#[test]
fn a_guest_that_spins_is_stopped_by_force() {
    let Some(machine) = arm(config(&SPIN, 2, None)) else { return };
    let machine = machine.run();
    machine.power_button();
    assert_eq!(machine.end(), None);
    machine.stop();
    machine.stop();
    assert_eq!(end(&machine), GuestEnd::Stopped);
}

#[test]
fn a_paused_guest_does_nothing_and_goes_on_where_it_was() {
    // Prints for ever: the jump is back over itself and the seven bytes before.
    let code = [print(b"."), vec![0xeb, 0xf7]].concat();
    let Some(machine) = arm(config(&code, 2, None)) else { return };
    let machine = machine.run();
    let exits = || machine.stats().vcpus.iter().map(|v| v.port).sum::<u64>();
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < HUNG, "{what}: {:?}", machine.end());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    until("it runs", &|| exits() > 0);
    for _ in 0..20 {
        assert!(machine.pause() && machine.is_paused());
        let at = exits();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(exits(), at);
        assert!(machine.resume() && !machine.is_paused());
        until("it goes on", &|| exits() > at);
    }
    assert!(machine.pause());
    machine.reset();
    until("it is reset", &|| machine.stats().reboots == 1);
    let at = exits();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(exits(), at, "a reset does not end the pause");
    assert!(machine.resume());
    until("it runs again", &|| exits() > at);
    assert!(machine.pause());
    machine.stop();
    assert_eq!(end(&machine), GuestEnd::Stopped);
    assert!(!machine.resume());
}

#[test]
fn an_armed_machine_has_its_threads_and_memory_and_executes_nothing() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let Some(machine) = arm(config(&[print(b"x"), power_off()].concat(), 3, Some(writer))) else { return };
    let roles: Vec<_> = machine.threads().iter().map(|t| t.role).collect();
    assert_eq!(roles, [Role::Emulator, Role::Io(7), Role::Vcpu(0), Role::Vcpu(1), Role::Vcpu(2)]);
    let names: Vec<_> = machine
        .threads()
        .iter()
        .map(|t| std::fs::read_to_string(format!("/proc/self/task/{}/comm", t.tid)).unwrap())
        .collect();
    assert_eq!(names, ["emulator\n", "io 7\n", "vcpu 0\n", "vcpu 1\n", "vcpu 2\n"]);
    assert_eq!(machine.memory().iter().map(|m| m.bytes).sum::<u64>(), 8 << 20);
    let readable = poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], PollTimeout::from(50u8));
    assert_eq!(readable, Ok(0));
    drop(machine);
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).unwrap();
    assert_eq!(text, "");
}

#[test]
fn a_machine_that_is_gone_leaves_no_thread_and_lets_go_of_its_disks() {
    let image = tempfile::NamedTempFile::with_suffix(".raw").unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let open = || {
        let options = DiskOptions { access: Access::ReadWrite, format: None };
        vmm_block::open(image.path(), options)
    };
    let mut config = config(&SPIN, 2, None);
    let disk = |image| DiskConfig {
        name: "a".to_owned(),
        image: Arc::new(Mutex::new(image)),
        serial: String::new(),
        io_thread: Some(0),
    };
    config.disks.push(disk(open().unwrap()));
    let Some(machine) = arm(config) else { return };
    assert!(open().is_err(), "the image is locked");
    let tids: Vec<_> = machine.threads().iter().map(|t| t.tid).collect();
    drop(machine.run());
    assert!(open().is_ok());
    let gone = |tid: &i32| !std::path::Path::new(&format!("/proc/self/task/{tid}")).exists();
    let began = Instant::now();
    while !tids.iter().all(gone) {
        assert!(began.elapsed() < HUNG, "a thread is left");
        std::thread::yield_now();
    }
}

#[test]
fn a_kernel_that_is_none_and_cpus_that_are_none_are_refused() {
    let mut no_kernel = config(&[], 1, None);
    no_kernel.kernel = files(tempfile::tempfile().unwrap());
    let refused = |config| ArmedMachine::arm(config, &mut |_, _| ()).unwrap_err();
    match refused(no_kernel) {
        ArmError::Boot(_) => {}
        ArmError::Kvm(e) => return println!("skipped: this computer runs no guests: {e}"),
        e => panic!("{e:?}"),
    }
    let mut nowhere = config(&SPIN, 1, None);
    nowhere.emulator_cpus = vec![1023];
    assert!(matches!(refused(nowhere), ArmError::Thread { .. }));
    let mut crooked = config(&SPIN, 2, None);
    crooked.vcpus.pop();
    assert!(matches!(refused(crooked), ArmError::Config(_)));
}
