//! The process that reads disk images: what it gives, what it may do, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test that panics fails")]

use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pinion_launcher::image::{DiskKernel, ImageError, ReadLimits, inspect};
use vmm_block::{Access, DiskOptions, ImageFormat, SharedDisk};
use vmm_machine::ReadKernel;

const READER: &str = env!("CARGO_BIN_EXE_pinion-image");
const CONFIGURATION: &str =
    "default a\nlabel a\nkernel /vmlinuz\ninitrd /initrd\nappend root=/dev/vda quiet\n";

/// An image that Syslinux boots.
fn image(kernel: &[u8]) -> File {
    let mut disk = Cursor::new(vec![0; 8 << 20]);
    fatfs::format_volume(&mut disk, fatfs::FormatVolumeOptions::new()).unwrap();
    let system = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
    let put = |name, content: &[u8]| {
        let mut file = system.root_dir().create_file(name).unwrap();
        file.truncate().unwrap();
        file.write_all(content).unwrap();
    };
    put("syslinux.cfg", CONFIGURATION.as_bytes());
    put("vmlinuz", kernel);
    put("initrd", b"the initrd");
    drop(system);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&disk.into_inner()).unwrap();
    file
}

fn open(file: File) -> SharedDisk {
    let options = DiskOptions { access: Access::ReadWrite, format: Some(ImageFormat::Raw) };
    Arc::new(Mutex::new(vmm_block::open_file(file, "test", options).unwrap()))
}

fn text(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_kernel_is_read_and_read_anew_when_the_guest_has_changed_it() {
    let file = image(b"the kernel");
    let disk = open(file.try_clone().unwrap());
    let mut kernel = DiskKernel::new("root", Arc::clone(&disk)).unwrap();
    let files = kernel.read().unwrap();
    assert_eq!(files.command_line, "console=ttyS0 root=/dev/vda quiet");
    assert_eq!(
        (text(files.kernel).as_str(), text(files.initrd.unwrap()).as_str()),
        ("the kernel", "the initrd")
    );
    file.write_all_at(&bytes_of(&image(b"a newer kernel")), 0).unwrap();
    assert_eq!(text(kernel.read().unwrap().kernel), "a newer kernel");
}

#[test]
fn a_kernel_is_read_through_what_the_guest_wrote_on_top_of_an_image() {
    let file = image(b"the kernel");
    let before = bytes_of(&file);
    let options = DiskOptions { access: Access::ReadOnly, format: None };
    let base = vmm_block::open_file(file.try_clone().unwrap(), "test", options).unwrap();
    let disk = vmm_block::overlay(base, tempfile::tempfile().unwrap()).unwrap();
    let disk: SharedDisk = Arc::new(Mutex::new(disk));
    let mut kernel = DiskKernel::new("root", Arc::clone(&disk)).unwrap();
    assert_eq!(text(kernel.read().unwrap().kernel), "the kernel");
    let mut newer = bytes_of(&image(b"a newer kernel"));
    disk.lock().unwrap().write(&[newer.as_mut_slice().into()], 0).unwrap();
    assert_eq!(text(kernel.read().unwrap().kernel), "a newer kernel");
    assert_eq!(bytes_of(&file), before);
}

fn bytes_of(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_disk_that_does_not_boot_is_told_with_its_volume_and_a_reason() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let disk = open(file);
    let error = DiskKernel::new("root", Arc::clone(&disk)).unwrap().read().unwrap_err();
    let text = pinion_launcher::chain(error.as_ref());
    assert!(text.starts_with("volume \"root\"") && text.contains("no boot configuration"), "{text}");
    let report = inspect(&disk, ReadLimits::default()).unwrap();
    assert_eq!(report.reason.as_deref(), Some("UnsupportedFileSystem"));
}

#[test]
fn time_and_bytes_are_limited() {
    let disk = open(image(b"kernel"));
    let bytes = ReadLimits { bytes: 512, ..ReadLimits::default() };
    assert!(matches!(inspect(&disk, bytes), Err(ImageError::TooMuch(512))));
    let time = ReadLimits { time: Duration::ZERO, ..ReadLimits::default() };
    assert!(matches!(inspect(&disk, time), Err(ImageError::TooLong(_))));
}

#[test]
fn the_reader_has_no_privilege_no_file_and_hardly_a_system_call() {
    let (own, other) = UnixStream::pair().unwrap();
    let mut reader = Command::new(READER)
        .stdin(Stdio::from(OwnedFd::from(other)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = format!("/proc/{}", reader.id());
    let until = Instant::now() + Duration::from_secs(20);
    let status = loop {
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        // It waits for its first word once it has confined itself.
        if status.contains("Seccomp:\t2") {
            break status;
        }
        assert!(Instant::now() < until, "{status}");
        std::thread::sleep(Duration::from_millis(5));
    };
    for line in ["NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    let memory = limits.lines().find(|l| l.starts_with("Max address space")).unwrap();
    assert!(memory.contains("536870912"), "{memory}");
    // The other end is gone: it ends by itself.
    drop(own);
    assert_eq!(reader.wait().unwrap().code(), Some(1));
}

#[test]
fn it_is_not_for_typing() {
    let output = Command::new(READER).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("pinion image inspect"));
}
