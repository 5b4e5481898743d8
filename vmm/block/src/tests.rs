use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::{FormatCreateBuilder, Storage as _, StorageOpenOptions};
use proptest::prelude::*;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::*;

const RW: DiskOptions = DiskOptions { access: Access::ReadWrite, format: None };
const RO: DiskOptions = DiskOptions { access: Access::ReadOnly, format: None };

struct Memory(GuestMemoryMmap);

impl Memory {
    fn new() -> Self {
        Self(
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000), (GuestAddress(0x8000), 0x8000)])
                .unwrap(),
        )
    }

    fn slices(&self, parts: &[(u64, usize)]) -> Vec<VolatileSlice<'_>> {
        parts.iter().map(|&(at, len)| self.0.get_slice(GuestAddress(at), len).unwrap()).collect()
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.0.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }
}

fn raw(directory: &TempDir, name: &str, len: u64) -> PathBuf {
    let path = directory.path().join(name);
    File::create(&path).unwrap().set_len(len).unwrap();
    path
}

fn qcow2(directory: &TempDir, name: &str, len: u64, backing: Option<(&str, &str)>) -> PathBuf {
    let path = directory.path().join(name);
    File::create(&path).unwrap();
    let storage = Storage::open(StorageOpenOptions::new().filename(&path).write(true)).unwrap();
    let mut builder = Qcow2::<Storage>::create_builder(storage).size(len);
    if let Some((file, format)) = backing {
        builder = builder.backing(file.into(), format.into());
    }
    builder.create().unwrap();
    path
}

fn read(disk: &mut dyn Disk, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
    let memory = Memory::new();
    disk.read(&memory.slices(&[(0, len)]), offset)?;
    Ok(memory.get(0, len))
}

fn write(disk: &mut dyn Disk, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
    let memory = Memory::new();
    memory.put(0, bytes);
    disk.write(&memory.slices(&[(0, bytes.len())]), offset)
}

fn refused(path: &Path, options: DiskOptions) -> String {
    let error = open(path, options).unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string);
    error.to_string().replace(path.parent().unwrap().to_str().unwrap(), "DIR")
        + &source.map_or(String::new(), |s| format!(": {s}"))
}

#[test]
fn both_formats_keep_what_is_written() {
    let directory = TempDir::new().unwrap();
    for path in [raw(&directory, "a.raw", 1 << 20), qcow2(&directory, "a.qcow2", 1 << 20, None)] {
        let mut disk = open(&path, RW).unwrap();
        assert_eq!(
            (disk.capacity(), disk.access(), disk.name()),
            (1 << 20, Access::ReadWrite, path.to_str().unwrap())
        );
        let memory = Memory::new();
        memory.put(0x10, &[1; 700]);
        memory.put(0x9000, &[2; 324]);
        disk.write(&memory.slices(&[(0x10, 700), (0, 0), (0x9000, 324)]), 0x3000).unwrap();
        disk.flush().unwrap();
        drop(disk);
        let mut disk = open(&path, RO).unwrap();
        let expected = [vec![1; 700], vec![2; 324], vec![0; 512]].concat();
        assert_eq!(read(&mut *disk, 0x3000, 1536).unwrap(), expected);
        disk.write_zeroes(0, 512, Space::Free).unwrap_err();
    }
}

#[test]
fn zeroes_and_discards_work_in_both_formats() {
    let directory = TempDir::new().unwrap();
    for path in [raw(&directory, "a.raw", 1 << 20), qcow2(&directory, "a.qcow2", 1 << 20, None)] {
        let mut disk = open(&path, RW).unwrap();
        for space in [Space::Free, Space::Keep] {
            write(&mut *disk, 0, &[7; 0x4000]).unwrap();
            disk.write_zeroes(512, 0x1000, space).unwrap();
            let bytes = read(&mut *disk, 0, 0x4000).unwrap();
            assert!(bytes[512..0x1200].iter().all(|&byte| byte == 0));
            assert!(bytes[..512].iter().chain(&bytes[0x1200..]).all(|&byte| byte == 7));
        }
        disk.discard(0, 0x4000).unwrap();
        disk.discard(0, 0).unwrap();
        disk.write_zeroes(1 << 20, 0, Space::Keep).unwrap();
        disk.flush().unwrap();
    }
}

#[test]
fn nothing_reaches_past_the_end() {
    let directory = TempDir::new().unwrap();
    for path in [raw(&directory, "a.raw", 4096), qcow2(&directory, "a.qcow2", 4096, None)] {
        let mut disk = open(&path, RW).unwrap();
        for offset in [4096, 3585, u64::MAX, u64::MAX - 100] {
            assert_eq!(read(&mut *disk, offset, 512).unwrap_err().kind, FaultKind::OutOfRange);
            assert_eq!(write(&mut *disk, offset, &[0; 512]).unwrap_err().kind, FaultKind::OutOfRange);
            assert_eq!(disk.discard(offset, 512).unwrap_err().kind, FaultKind::OutOfRange);
            assert_eq!(disk.write_zeroes(offset, 512, Space::Keep).unwrap_err().kind, FaultKind::OutOfRange);
        }
    }
}

#[test]
fn an_odd_end_reads_as_zeroes_and_can_be_written() {
    let directory = TempDir::new().unwrap();
    let path = raw(&directory, "odd.raw", 0);
    fs::write(&path, [5; 700]).unwrap();
    let mut disk = open(&path, RW).unwrap();
    assert_eq!(disk.capacity(), 1024);
    let bytes = read(&mut *disk, 0, 1024).unwrap();
    assert!(bytes[..700].iter().all(|&byte| byte == 5) && bytes[700..].iter().all(|&byte| byte == 0));
    write(&mut *disk, 512, &[6; 512]).unwrap();
    assert_eq!(read(&mut *disk, 512, 512).unwrap(), [6; 512]);
}

#[test]
fn a_file_that_is_cut_short_while_running_has_vanished() {
    let directory = TempDir::new().unwrap();
    let path = raw(&directory, "a.raw", 8192);
    let mut disk = open(&path, RW).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let error = read(&mut *disk, 4096, 512).unwrap_err();
    assert_eq!(error.kind, FaultKind::Vanished);
    assert!(error.to_string().contains("restore it"), "{error}");
    assert!(read(&mut *disk, 0, 512).is_ok());
}

#[test]
fn errors_of_the_kernel_are_told_apart() {
    for (code, kind) in [
        (libc::ENOSPC, FaultKind::Full),
        (libc::EDQUOT, FaultKind::Full),
        (libc::EIO, FaultKind::Io),
        (libc::ENXIO, FaultKind::Vanished),
        (libc::ENODEV, FaultKind::Vanished),
        (libc::ESTALE, FaultKind::Vanished),
        (libc::EOPNOTSUPP, FaultKind::Unsupported),
    ] {
        assert_eq!(DiskError::new("read", "x", io::Error::from_raw_os_error(code)).kind, kind, "{code}");
    }
    let full = DiskError::new("write to", "/d", io::Error::from_raw_os_error(libc::ENOSPC));
    assert_eq!(full.to_string(), "Cannot write to disk image /d: free space on the host's file system");
}

#[test]
fn a_full_device_is_reported_as_full() {
    let Ok(file) = File::options().read(true).write(true).open("/dev/full") else {
        println!("skipped: no /dev/full here");
        return;
    };
    let error = file.write_at(&[0], 0).unwrap_err();
    assert_eq!(DiskError::new("write to", "/dev/full", error).kind, FaultKind::Full);
}

#[test]
fn one_writer_or_many_readers() {
    let directory = TempDir::new().unwrap();
    let path = raw(&directory, "a.raw", 4096);
    let writer = open(&path, RW).unwrap();
    assert!(matches!(open(&path, RW), Err(OpenError::Locked { .. })));
    assert!(refused(&path, RO).starts_with("Disk image DIR/a.raw is locked by another process"));
    drop(writer);
    let readers = [open(&path, RO).unwrap(), open(&path, RO).unwrap()];
    assert!(matches!(open(&path, RW), Err(OpenError::Locked { .. })));
    drop(readers);
    open(&path, RW).unwrap();
}

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let missing = refused(&directory.path().join("no.img"), RW);
    assert!(missing.starts_with("Cannot open disk image DIR/no.img (for writing)"), "{missing}");
    assert!(matches!(open(directory.path(), RO), Err(OpenError::NotADisk { .. })));
    assert!(refused(&raw(&directory, "empty.img", 0), RW).contains("`truncate -s 10G"));
    let broken = raw(&directory, "broken.qcow2", 4096);
    assert!(refused(&broken, RW).starts_with("Cannot open DIR/broken.qcow2 as qcow2"));
}

#[test]
fn a_writable_image_is_never_taken_for_qcow2_by_its_content() {
    let directory = TempDir::new().unwrap();
    let path = qcow2(&directory, "a.img", 1 << 20, None);
    assert!(matches!(open(&path, RW), Err(OpenError::Ambiguous { .. })));
    assert_eq!(open(&path, RO).unwrap().capacity(), 1 << 20);
    let stated = DiskOptions { format: Some(ImageFormat::Raw), ..RW };
    assert!(open(&path, stated).unwrap().capacity() < 1 << 20, "raw as stated");
    let stated = DiskOptions { format: Some(ImageFormat::Qcow2), ..RW };
    assert_eq!(open(&path, stated).unwrap().capacity(), 1 << 20);
}

#[test]
fn a_backing_file_beside_the_image_is_read_through() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("base.raw"), vec![3; 1 << 16]).unwrap();
    qcow2(&directory, "middle.qcow2", 1 << 16, Some(("base.raw", "raw")));
    let top = qcow2(&directory, "top.qcow2", 1 << 16, Some(("middle.qcow2", "qcow2")));
    let mut disk = open(&top, RW).unwrap();
    assert_eq!(read(&mut *disk, 0x1000, 512).unwrap(), [3; 512]);
    write(&mut *disk, 0x1000, &[4; 512]).unwrap();
    assert_eq!(read(&mut *disk, 0x1000, 1024).unwrap(), [[4; 512], [3; 512]].concat());
    assert_eq!(fs::read(directory.path().join("base.raw")).unwrap(), vec![3; 1 << 16]);
    let base = directory.path().join("base.raw");
    assert!(matches!(open(&base, RW), Err(OpenError::Locked { .. })), "a base in use is not written");
}

#[test]
fn references_out_of_the_directory_are_refused() {
    let directory = TempDir::new().unwrap();
    for (number, reference) in
        ["/etc/hostname", "../a.raw", "sub/a.raw", "json:{}", "..", "a.raw/"].iter().enumerate()
    {
        let path = qcow2(&directory, &format!("{number}.qcow2"), 4096, Some((reference, "raw")));
        let message = refused(&path, RO);
        assert!(
            message.contains(&format!("refers to {reference}"))
                || message.starts_with("Cannot open disk image"),
            "{reference}: {message}"
        );
    }
    let path = qcow2(&directory, "self.qcow2", 4096, Some(("self.qcow2", "qcow2")));
    assert!(refused(&path, RO).contains("chain of backing files is too long"));
    let path = qcow2(&directory, "vmdk.qcow2", 4096, Some(("a.vmdk", "vmdk")));
    assert!(refused(&path, RO).contains("must be stated"));
    raw(&directory, "base.raw", 4096);
    let path = qcow2(&directory, "content.img", 4096, Some(("base.raw", "raw")));
    assert!(refused(&path, RO).contains("not allowed here"), "known by content only");
}

#[test]
fn a_refcount_table_with_a_gap_is_not_written_to() {
    let directory = TempDir::new().unwrap();
    let path = qcow2(&directory, "a.qcow2", 1 << 20, None);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut table = [0; 8];
    file.read_exact_at(&mut table, 48).unwrap();
    file.write_all_at(&[0, 0, 0, 0, 0, 1, 0, 0], u64::from_be_bytes(table) + 16).unwrap();
    assert!(refused(&path, RW).contains("has a gap; repair it with `qemu-img check -r all`"));
    open(&path, RO).unwrap();
}

#[test]
fn an_open_descriptor_works_like_a_path() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(2048).unwrap();
    let disk = open_file(
        file,
        "cloud-init",
        DiskOptions { access: Access::ReadOnly, format: Some(ImageFormat::Raw) },
    );
    let mut disk = disk.unwrap();
    assert_eq!(disk.name(), "cloud-init");
    assert_eq!(read(&mut *disk, 512, 512).unwrap(), [0; 512]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_disk_is_a_byte_array(
        steps in proptest::collection::vec((0_u64..126, 1_usize..20, any::<u8>(), 0_u8..5), 1..40),
        format in 0..2
    ) {
        let directory = TempDir::new().unwrap();
        let path = if format == 0 { raw(&directory, "a.raw", 64 << 10) } else { qcow2(&directory, "a.qcow2", 64 << 10, None) };
        let mut disk = open(&path, RW).unwrap();
        let mut model = vec![0_u8; 64 << 10];
        for (sector, sectors, value, kind) in steps {
            let offset = sector * 512;
            let at = usize::try_from(offset).unwrap();
            let len = (sectors * 512).min(model.len() - at);
            match kind {
                0 | 1 => {
                    write(&mut *disk, offset, &vec![value; len]).unwrap();
                    model[at..at + len].fill(value);
                }
                2 => {
                    let space = if value & 1 == 0 { Space::Free } else { Space::Keep };
                    disk.write_zeroes(offset, len as u64, space).unwrap();
                    model[at..at + len].fill(0);
                }
                3 => {
                    disk.flush().unwrap();
                    drop(disk);
                    disk = open(&path, RW).unwrap();
                }
                _ => prop_assert_eq!(&read(&mut *disk, offset, len).unwrap(), &model[at..at + len]),
            }
        }
        prop_assert_eq!(read(&mut *disk, 0, 32 << 10).unwrap(), &model[..32 << 10]);
    }
}
