//! Kernels made up here, loaded into memory that is read back.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_bus::Gpa;
use vmm_memory::layout;

use crate::{BootEntry, BootError, BootSource, Kind, MapEntry, Protocol, load, memory_map};

const MIB: u64 = 1 << 20;
const RSDP: Gpa = layout::ACPI;
/// Where the tests' kernels prefer to be.
const PREFERRED: u64 = 16 * MIB;
const PAYLOAD: &[u8] = b"\xf4 the kernel's own bytes ";

/// A file that is gone when it is closed.
fn file(bytes: &[u8]) -> File {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("vmm-boot-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = env::temp_dir().join(name);
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn memory(mib: u64) -> GuestMemoryMmap {
    let bytes = usize::try_from(mib * MIB).unwrap();
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)]).unwrap()
}

fn boot(
    memory: &GuestMemoryMmap,
    kernel: &[u8],
    initrd: Option<&[u8]>,
    command_line: &str,
) -> Result<BootEntry, BootError> {
    let (mut kernel, mut initrd) = (file(kernel), initrd.map(file));
    load(memory, BootSource { kernel: &mut kernel, initrd: initrd.as_mut(), command_line }, RSDP)
}

fn number(memory: &GuestMemoryMmap, at: u64, len: usize) -> u64 {
    let mut bytes = [0; 8];
    memory.read_slice(&mut bytes[..len], GuestAddress(at)).unwrap();
    u64::from_le_bytes(bytes)
}

fn text(memory: &GuestMemoryMmap, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

fn set(image: &mut [u8], at: usize, value: &[u8]) {
    image[at..at + value.len()].copy_from_slice(value);
}

/// A bzImage of one setup sector (offsets of Documentation/arch/x86/boot.rst).
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 1024];
    set(&mut image, 0x1f1, &[1]);
    set(&mut image, 0x202, b"HdrS");
    set(&mut image, 0x206, &0x020fu16.to_le_bytes());
    set(&mut image, 0x211, &[1]);
    set(&mut image, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    set(&mut image, 0x230, &0x20_0000u32.to_le_bytes());
    set(&mut image, 0x234, &[1]);
    set(&mut image, 0x236, &1u16.to_le_bytes());
    set(&mut image, 0x238, &100u32.to_le_bytes());
    set(&mut image, 0x258, &PREFERRED.to_le_bytes());
    set(&mut image, 0x260, &u32::try_from(4 * MIB).unwrap().to_le_bytes());
    image.extend(PAYLOAD);
    image.resize(1024 + 4096, 0x90);
    set(&mut image, 0x1f4, &(4096u32 / 16).to_le_bytes());
    image
}

/// An ELF image of one segment, and a note with its PVH entry where one is given.
fn elf(pvh_entry: Option<u32>) -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    set(&mut image, 0, b"\x7fELF\x02\x01\x01");
    set(&mut image, 16, &[2, 0, 62, 0, 1]);
    set(&mut image, 24, &PREFERRED.to_le_bytes());
    set(&mut image, 32, &64u64.to_le_bytes());
    set(&mut image, 52, &[64, 0, 56, 0, 2, 0]);
    let mut segment = |at: usize, kind: u32, [offset, address, len, memory]: [u64; 4]| {
        set(&mut image, at, &kind.to_le_bytes());
        for (slot, value) in [(8, offset), (16, address), (24, address), (32, len), (40, memory)] {
            set(&mut image, at + slot, &value.to_le_bytes());
        }
    };
    segment(64, 1, [0x1000, PREFERRED, PAYLOAD.len() as u64, MIB]);
    segment(120, if pvh_entry.is_some() { 4 } else { 0 }, [0x800, 0, 20, 20]);
    let words = [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), pvh_entry.unwrap_or(0)];
    for (slot, word) in words.into_iter().enumerate() {
        set(&mut image, 0x800 + slot * 4, &word.to_le_bytes());
    }
    image.extend(PAYLOAD);
    image
}

#[test]
fn a_bzimage_goes_where_it_prefers_and_is_entered_in_64_bits() {
    let memory = memory(64);
    let entry = boot(&memory, &bzimage(), Some(b"an initrd"), "console=ttyS0").unwrap();
    assert_eq!((entry.protocol, entry.rip), (Protocol::Linux64, Gpa(PREFERRED + 0x200)));
    assert_eq!((entry.rsi, entry.cr3), (layout::BOOT_PARAMS, layout::PAGE_TABLES));
    assert_eq!(text(&memory, PREFERRED, PAYLOAD.len()), PAYLOAD);

    let params = layout::BOOT_PARAMS.0;
    assert_eq!(number(&memory, params + 0x70, 8), RSDP.0);
    assert_eq!(number(&memory, params + 0x210, 1), 0xff);
    assert_eq!(number(&memory, params + 0x228, 4), layout::COMMAND_LINE.0);
    assert_eq!(text(&memory, layout::COMMAND_LINE.0, 14), b"console=ttyS0\0");
    let (initrd, len) = (number(&memory, params + 0x218, 4), number(&memory, params + 0x21c, 4));
    assert_eq!((initrd, len), (64 * MIB - 4096, 9));
    assert_eq!(text(&memory, initrd, 9), b"an initrd");
    assert_eq!(number(&memory, params + 0x1e8, 1), memory_map(&memory).len() as u64);
}

#[test]
fn the_first_four_gigabytes_are_mapped_one_to_one() {
    let memory = memory(64);
    let entry = boot(&memory, &bzimage(), None, "").unwrap();
    let follow = |table: u64, slot: u64| number(&memory, (table & !0xfff) + slot * 8, 8);
    for address in [0, PREFERRED, 0xc020_0000, 0xffe0_0000u64] {
        let directory = follow(follow(entry.cr3.0, 0), address >> 30);
        assert_eq!(follow(directory, address >> 21 & 511), address | 0x83, "{address:#x}");
    }
}

#[test]
fn a_small_guest_has_the_kernel_as_low_as_it_can_be() {
    let entry = boot(&memory(8), &bzimage(), None, "").unwrap();
    assert_eq!(entry.rip, Gpa(2 * MIB + 0x200));
    let mut fixed = bzimage();
    set(&mut fixed, 0x234, &[0]);
    assert!(matches!(boot(&memory(8), &fixed, None, ""), Err(BootError::KernelTooLarge { .. })));
    assert!(matches!(boot(&memory(4), &bzimage(), None, ""), Err(BootError::KernelTooLarge { .. })));
}

#[test]
fn a_kernel_cut_short_is_refused_with_both_lengths() {
    let mut cut = bzimage();
    cut.truncate(1024 + 4000);
    let error = boot(&memory(64), &cut, None, "").unwrap_err();
    assert!(matches!(error, BootError::KernelTruncated { has: 5024, needed: 5120 }), "{error}");
    // Signed kernels go on after their last paragraph.
    let mut signed = bzimage();
    signed.extend([0; 1500]);
    assert!(boot(&memory(64), &signed, None, "").is_ok());
    let mut setup_only = bzimage();
    setup_only.truncate(1024);
    assert!(matches!(boot(&memory(64), &setup_only, None, ""), Err(BootError::Unsupported(_))));
}

#[test]
fn kernels_without_a_64_bit_entry_are_refused() {
    for (at, value) in [(0x206, 0x0b), (0x236, 0), (0x211, 0)] {
        let mut image = bzimage();
        set(&mut image, at, &[value]);
        let error = boot(&memory(64), &image, None, "").unwrap_err();
        assert!(matches!(error, BootError::Unsupported(_)), "{at:#x}: {error}");
    }
}

#[test]
fn an_initrd_stays_between_the_kernel_and_its_ceiling() {
    let mut low = bzimage();
    set(&mut low, 0x22c, &u32::try_from(32 * MIB - 1).unwrap().to_le_bytes());
    let ram = memory(64);
    boot(&ram, &low, Some(&[7; 5000]), "").unwrap();
    assert_eq!(number(&ram, layout::BOOT_PARAMS.0 + 0x218, 4), 32 * MIB - 8192);

    let large = vec![7; usize::try_from(13 * MIB).unwrap()];
    let error = boot(&ram, &low, Some(&large), "").unwrap_err();
    assert!(matches!(error, BootError::InitrdTooLarge { from: Gpa(f), .. } if f == 20 * MIB), "{error}");
    assert!(matches!(boot(&ram, &low, Some(b""), ""), Err(BootError::EmptyInitrd)));
}

#[test]
fn command_lines_that_the_kernel_cannot_take_are_refused() {
    let long = "x".repeat(101);
    let error = boot(&memory(64), &bzimage(), None, &long).unwrap_err();
    assert!(matches!(error, BootError::CommandLineTooLong { bytes: 101, most: 100 }), "{error}");
    assert!(matches!(boot(&memory(64), &bzimage(), None, "a\0b"), Err(BootError::CommandLineZero)));
}

#[test]
fn an_elf_image_is_entered_by_pvh() {
    let memory = memory(64);
    let entry = boot(&memory, &elf(Some(0x0100_0040)), Some(b"an initrd"), "quiet").unwrap();
    assert_eq!((entry.protocol, entry.rip), (Protocol::Pvh, Gpa(0x0100_0040)));
    assert_eq!((entry.rbx, entry.cr3), (layout::PVH_START_INFO, Gpa(0)));
    assert_eq!(text(&memory, PREFERRED, PAYLOAD.len()), PAYLOAD);

    let info = layout::PVH_START_INFO.0;
    assert_eq!((number(&memory, info, 4), number(&memory, info + 4, 4)), (0x336e_c578, 1));
    assert_eq!(number(&memory, info + 12, 4), 1);
    let module = number(&memory, info + 16, 8);
    assert_eq!(text(&memory, number(&memory, module, 8), 9), b"an initrd");
    assert_eq!(text(&memory, number(&memory, info + 24, 8), 6), b"quiet\0");
    assert_eq!(number(&memory, info + 32, 8), RSDP.0);
    let map = number(&memory, info + 40, 8);
    for (slot, entry) in (0u64..).zip(memory_map(&memory)) {
        assert_eq!(number(&memory, map + slot * 24, 8), entry.start.0);
        assert_eq!(number(&memory, map + slot * 24 + 8, 8), entry.len);
    }
}

#[test]
fn elf_images_that_cannot_be_entered_are_refused() {
    let mut cut = elf(Some(0x0100_0040));
    cut.truncate(0x1008);
    let mut high = elf(Some(0x0100_0040));
    set(&mut high, 64 + 24, &(65 * MIB).to_le_bytes());
    for image in [elf(None), cut, high] {
        assert!(matches!(boot(&memory(64), &image, None, ""), Err(BootError::Unsupported(_))));
    }
}

#[test]
fn the_memory_map_goes_around_the_hole_and_names_what_is_reserved() {
    let low = usize::try_from(layout::HOLE_START.0).unwrap();
    let ranges = [(GuestAddress(0), low), (GuestAddress(layout::HOLE_END.0), 1 << 30)];
    let map = memory_map(&GuestMemoryMmap::from_ranges(&ranges).unwrap());
    let ram: Vec<_> =
        map.iter().filter(|e| e.kind == Kind::Ram).map(|e| (e.start.0, e.start.0 + e.len)).collect();
    let (hole, after) = (layout::HOLE_START.0, layout::HOLE_END.0);
    assert_eq!(ram, [(0, layout::LOW_RAM_END.0), (MIB, hole), (after, after + (1 << 30))]);
    let ecam = MapEntry { start: layout::ECAM_START, len: layout::ECAM_LEN, kind: Kind::Reserved };
    assert!(map.contains(&ecam));
    assert!(map.windows(2).all(|w| w[0].start.0 + w[0].len <= w[1].start.0));
}

#[test]
fn the_hosts_own_kernel_can_be_loaded_and_a_half_of_it_cannot() {
    let kernels = fs::read_dir("/boot").into_iter().flatten().flatten().map(|e| e.path());
    let mut kernels = kernels.filter(|p| p.to_string_lossy().contains("vmlinuz"));
    let Some(bytes) = kernels.find_map(|p| fs::read(p).ok()) else {
        println!("skipped: no kernel in /boot, or none that this user may read");
        return;
    };
    let memory = memory(512);
    let entry = boot(&memory, &bytes, None, "console=ttyS0").unwrap();
    assert_eq!(entry.protocol, Protocol::Linux64);
    let error = boot(&memory, &bytes[..bytes.len() / 2], None, "").unwrap_err();
    assert!(matches!(error, BootError::KernelTruncated { .. }), "{error}");
}
