//! Images with partition tables and real file systems, whole and damaged.

use std::fs::{self, File};
use std::io::{self, Cursor, Write};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use crate::{BootError, FileSystemKind, Media, PartitionKind, TableKind, examine};

const SECTOR: usize = 512;
const ESP: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
const LINUX: [u8; 16] =
    [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
const SYSLINUX: &[u8] = b"default a\nlabel a\nkernel /vmlinuz\ninitrd /initrd\nappend root=/dev/vda1 quiet\n";

/// An image, and bytes of it that are others.
struct Bytes(Rc<Vec<u8>>, Vec<(usize, u8)>);

impl Media for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, to: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)?.get(..to.len()));
        to.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        for (at, byte) in &self.1 {
            let inside = at.checked_sub(usize::try_from(offset).unwrap_or(0)).and_then(|at| to.get_mut(at));
            inside.into_iter().for_each(|b| *b = *byte);
        }
        Ok(())
    }
}

/// A disk of these partitions, each from a multiple of 1 MiB on.
fn gpt(partitions: &[([u8; 16], &[u8])]) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    let mut entries = vec![0; 128 * 128];
    for (number, (kind, content)) in partitions.iter().enumerate() {
        let first = disk.len() / SECTOR;
        disk.extend(*content);
        disk.resize(disk.len().next_multiple_of(1 << 20), 0);
        let entry = &mut entries[number * 128..(number + 1) * 128];
        entry[..16].copy_from_slice(kind);
        entry[16..32].copy_from_slice(&[number as u8 + 1; 16]);
        entry[32..40].copy_from_slice(&(first as u64).to_le_bytes());
        entry[40..48].copy_from_slice(&((disk.len() / SECTOR - 1) as u64).to_le_bytes());
        entry[56..58].copy_from_slice(&[b'p', 0]);
    }
    disk.resize(disk.len() + (1 << 20), 0);
    let last = disk.len() / SECTOR - 1;
    let header = |own: usize, other: usize, at: usize| {
        let mut bytes = [0; SECTOR];
        bytes[..8].copy_from_slice(b"EFI PART");
        bytes[8..12].copy_from_slice(&[0, 0, 1, 0]);
        bytes[12..16].copy_from_slice(&92_u32.to_le_bytes());
        bytes[24..32].copy_from_slice(&(own as u64).to_le_bytes());
        bytes[32..40].copy_from_slice(&(other as u64).to_le_bytes());
        bytes[72..80].copy_from_slice(&(at as u64).to_le_bytes());
        bytes[80..84].copy_from_slice(&128_u32.to_le_bytes());
        bytes[84..88].copy_from_slice(&128_u32.to_le_bytes());
        bytes[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        let sum = crc32fast::hash(&bytes[..92]);
        bytes[16..20].copy_from_slice(&sum.to_le_bytes());
        bytes
    };
    disk[SECTOR..2 * SECTOR].copy_from_slice(&header(1, last, 2));
    disk[2 * SECTOR..2 * SECTOR + entries.len()].copy_from_slice(&entries);
    let backup = (last - 32) * SECTOR;
    disk[backup..backup + entries.len()].copy_from_slice(&entries);
    disk[last * SECTOR..].copy_from_slice(&header(last, 1, last - 32));
    disk[446 + 4] = 0xee;
    disk[446 + 8] = 1;
    disk[446 + 12..446 + 16].copy_from_slice(&u32::MAX.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn fat(files: &[(&str, &[u8])]) -> Vec<u8> {
    fat_of(fatfs::FatType::Fat12, 4 << 20, files)
}

fn fat_of(kind: fatfs::FatType, bytes: usize, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; bytes]);
    let options =
        fatfs::FormatVolumeOptions::new().fat_type(kind).volume_label(*b"BOOT       ").volume_id(0x1234_abcd);
    fatfs::format_volume(&mut disk, options).unwrap();
    let system = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
    for (path, content) in files {
        let mut folder = system.root_dir();
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in folders.split('/').filter(|p| !p.is_empty()) {
            folder = folder.create_dir(part).unwrap();
        }
        folder.create_file(name).unwrap().write_all(content).unwrap();
    }
    system.unmount().unwrap();
    disk.into_inner()
}

/// An ext4 file system by the tool that everybody makes them with; `None` where that is missing.
fn ext4(files: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    for (path, content) in files {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    std::os::unix::fs::symlink("boot/vmlinuz", root.join("vmlinuz")).unwrap();
    let image = folder.path().join("image");
    File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let program = ["/sbin/mke2fs", "/usr/sbin/mke2fs"].into_iter().find(|p| Path::new(p).exists());
    let Some(program) = program else {
        println!("skipped: there is no mke2fs");
        return None;
    };
    let mut make = Command::new(program);
    make.args(["-q", "-t", "ext4", "-b", "4096", "-L", "root", "-O", "^has_journal", "-d"])
        .arg(&root)
        .arg(&image);
    assert!(make.status().unwrap().success());
    Some(fs::read(image).unwrap())
}

const FILES: [(&str, &[u8]); 3] =
    [("/syslinux.cfg", SYSLINUX), ("/vmlinuz", b"the kernel"), ("/initrd", b"the initrd")];

fn whole(disk: Vec<u8>) -> Box<Bytes> {
    Box::new(Bytes(Rc::new(disk), Vec::new()))
}

fn boots(disk: Vec<u8>) -> Result<[String; 3], BootError> {
    boots_from(whole(disk))
}

fn boots_from(disk: Box<Bytes>) -> Result<[String; 3], BootError> {
    let (mut kernel, mut initrd) = (Vec::new(), Vec::new());
    let line = examine(disk)?.boot(&mut kernel, &mut initrd)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok([text(kernel), text(initrd), line])
}

fn is_whole(disk: Vec<u8>) {
    assert_eq!(boots(disk).unwrap(), ["the kernel", "the initrd", "root=/dev/vda1 quiet"]);
}

#[test]
fn fat_and_ext4_boot_with_a_gpt_and_without() {
    is_whole(fat(&FILES));
    is_whole(gpt(&[(LINUX, &[0; SECTOR]), (ESP, &fat(&FILES))]));
    let linked: [(&str, &[u8]); 3] = [
        ("/boot/extlinux/extlinux.conf", SYSLINUX),
        ("/boot/vmlinuz", b"the kernel"),
        ("/initrd", b"the initrd"),
    ];
    let Some(root) = ext4(&linked) else { return };
    is_whole(root.clone());
    is_whole(gpt(&[(ESP, &fat(&[])), (LINUX, &root)]));
}

#[test]
fn every_width_of_fat_is_read_with_long_names_and_long_files() {
    let kernel = vec![b'k'; 300_000];
    let name = "a kernel with a rather long name, and some more of it.efi";
    let path = format!("/EFI/Grüße/{name}");
    let cfg = format!("default a\nlabel a\nkernel /EFI/x/../Grüße/{name}\n");
    for (kind, bytes) in [
        (fatfs::FatType::Fat12, 4 << 20),
        (fatfs::FatType::Fat16, 16 << 20),
        (fatfs::FatType::Fat32, 40 << 20),
    ] {
        let disk = fat_of(kind, bytes, &[("/SYSLINUX.CFG", cfg.as_bytes()), (&path, &kernel)]);
        assert_eq!(boots(disk).unwrap()[0].len(), kernel.len(), "{kind:?}");
    }
}

#[test]
fn partitions_are_told_as_linux_names_them() {
    let report = examine(whole(gpt(&[(ESP, &fat(&FILES)), (LINUX, b"")]))).unwrap().report();
    assert_eq!(report.table, TableKind::Gpt);
    let first = &report.partitions[0];
    assert_eq!((first.number, first.kind, first.file_system), (1, PartitionKind::Esp, FileSystemKind::Fat));
    assert_eq!((first.label.as_str(), first.uuid.as_str()), ("BOOT", "1234-ABCD"));
    assert_eq!(
        (first.name.as_str(), first.partition_uuid.as_str()),
        ("p", "01010101-0101-0101-0101-010101010101")
    );
    assert_eq!(first.size_bytes, 4 << 20);
}

#[test]
fn the_second_gpt_counts_where_the_first_is_gone_and_two_damaged_ones_are_told() {
    let mut disk = gpt(&[(ESP, &fat(&FILES))]);
    disk[SECTOR + 40] ^= 1;
    is_whole(disk.clone());
    let last = disk.len() - SECTOR;
    disk[last + 40] ^= 1;
    let error = boots(disk.clone()).unwrap_err();
    assert_eq!(
        (error.reason(), error.to_string().contains("checksum")),
        ("PartitionTableDamaged", true),
        "{error}"
    );
    disk[SECTOR] = 0;
    disk[last] = 0;
    assert!(boots(disk).unwrap_err().to_string().contains("says that it has a GPT"));
}

#[test]
fn logical_partitions_are_found_and_a_ring_of_them_ends() {
    let mut disk = vec![0; 1 << 20];
    let entry = |disk: &mut Vec<u8>, sector: usize, place: usize, kind: u8, start: u32, count: u32| {
        let at = sector * SECTOR + 446 + place * 16;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
        disk[sector * SECTOR + 510..][..2].copy_from_slice(&[0x55, 0xaa]);
    };
    disk[440..444].copy_from_slice(&0xdead_beef_u32.to_le_bytes());
    entry(&mut disk, 0, 0, 0x83, 1, 1);
    entry(&mut disk, 0, 1, 0x05, 64, 1984 + 8192);
    entry(&mut disk, 64, 0, 0x83, 1984, 8192);
    disk.extend(fat(&FILES));
    is_whole(disk.clone());
    let report = examine(whole(disk.clone())).unwrap().report();
    assert_eq!(report.table, TableKind::Mbr);
    let ids: Vec<_> = report.partitions.iter().map(|p| (p.number, p.partition_uuid.as_str())).collect();
    assert_eq!(ids, [(1, "deadbeef-01"), (5, "deadbeef-05")]);
    entry(&mut disk, 64, 1, 0x05, 0, 100);
    is_whole(disk);
}

#[test]
fn what_cannot_be_read_is_named_with_its_partition() {
    let marked = |offset: usize, mark: &[u8]| {
        let mut content = vec![0; 1 << 20];
        content[offset..offset + mark.len()].copy_from_slice(mark);
        gpt(&[(ESP, &fat(&[])), (LINUX, &content)])
    };
    for (offset, mark, expected) in [
        (0, b"XFSB".as_slice(), "partition 2 holds XFS"),
        (0x1_0040, b"_BHRfS_M", "partition 2 holds btrfs"),
        (SECTOR, b"LABELONE", "partition 2 holds an LVM volume"),
        (0, b"LUKS\xba\xbe", "partition 2 holds LUKS encryption"),
        (3, b"NTFS    ", "partition 2 holds NTFS"),
    ] {
        let error = boots(marked(offset, mark)).unwrap_err();
        assert_eq!(error.reason(), "UnsupportedFileSystem");
        assert!(error.to_string().contains(expected), "{error}");
    }
    for (disk, reason) in [
        (Vec::new(), "ImageUnreadable"),
        (vec![0; 100], "ImageUnreadable"),
        (vec![0; 1 << 16], "UnsupportedFileSystem"),
        (gpt(&[(ESP, &fat(&[]))]), "NoBootConfiguration"),
    ] {
        assert_eq!(boots(disk).unwrap_err().reason(), reason);
    }
}

/// The images that are damaged below: each with both file systems and all loaders' files somewhere.
fn victims() -> Vec<Vec<u8>> {
    let grub = b"search --label root --set\nmenuentry a { linux /vmlinuz a\ninitrd /initrd }\n".as_slice();
    let bls = b"title a\nlinux /vmlinuz\ninitrd /initrd\noptions a\n".as_slice();
    let unified =
        super::loaders::efi_program(&[(".linux", b"kernel"), (".cmdline", b"a"), (".initrd", b"i")]);
    let esp = fat(&[
        ("EFI/Linux/a.efi", &unified),
        ("loader/entries/a.conf", bls),
        ("vmlinuz", b"k"),
        ("initrd", b"i"),
    ]);
    let mut victims = vec![gpt(&[(ESP, &esp)]), gpt(&[(ESP, &fat(&FILES))])];
    let files: [(&str, &[u8]); 3] =
        [("/boot/grub/grub.cfg", grub), ("/boot/vmlinuz", b"k"), ("/initrd", &[7; 9000])];
    victims.extend(ext4(&files).map(|root| gpt(&[(LINUX, &root)])));
    victims
}

#[test]
fn images_that_end_early_are_errors() {
    for disk in victims() {
        // Where the structures are, every sector; then in large steps.
        let ends = (0..200).map(|n| n * SECTOR).chain((0..disk.len() >> 14).map(|n| n << 14));
        for end in ends.filter(|end| *end < disk.len()) {
            let _ = boots(disk.get(..end).unwrap().to_vec());
        }
    }
}

/// Ten thousand images, each damaged somewhere where something is: none panics, none takes long.
#[test]
fn images_damaged_anywhere_are_errors_or_boot() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap()
    };
    let victims: Vec<_> = victims().into_iter().map(Rc::new).collect();
    let used: Vec<Vec<usize>> =
        victims.iter().map(|disk| (0..disk.len()).filter(|at| disk[*at] != 0).collect()).collect();
    let mut booted = 0;
    for number in 0..10_000 {
        let which = number % victims.len();
        let (disk, used) = (&victims[which], &used[which]);
        let mut damage = Vec::new();
        for _ in 0..=random(4) {
            let at = used[random(used.len())];
            match random(4) {
                0 => damage.push((at, random(256) as u8)),
                1 => damage.push((at, disk[at] ^ 1 << random(8))),
                2 => damage.extend((at..at + 8).map(|at| (at, 0xff))),
                _ => {
                    let (from, to) = (used[random(used.len())] / 64 * 64, at / 64 * 64);
                    damage.extend((0..64).map(|n| (to + n, disk[from + n])));
                }
            }
        }
        booted += u32::from(boots_from(Box::new(Bytes(Rc::clone(disk), damage))).is_ok());
    }
    // Most damage is to what nobody reads.
    assert!(booted > 1000, "{booted}");
}
