//! The Boot Loader Specification, unified kernel images and Syslinux.

use super::{boot, root};
use crate::fake::{FakeFiles, examine};
use crate::{Examined, LoaderKind, PartitionKind};

fn esp(files: &[(&str, &[u8])]) -> Examined {
    examine(vec![(PartitionKind::Esp, FakeFiles::new(files).labelled("ESP"))])
}

const OLD: &[u8] = b"title Debian 6.1.0-50\nversion 6.1.0-50\nsort-key debian\nlinux /debian/50/linux\n";
const NEW: &[u8] = b"# by kernel-install\ntitle Debian 6.1.0-56\nversion 6.1.0-56\nsort-key debian\n\
    architecture x64\nlinux /debian/56/linux\ninitrd /debian/56/a\ninitrd /debian/56/b\noptions root=LABEL=x\noptions quiet\n";

fn debian<'a>(more: &[(&'a str, &'a [u8])]) -> Examined {
    let mut files: Vec<(&str, &[u8])> = vec![
        ("/loader/entries/debian-50.conf", OLD),
        ("/loader/entries/debian-56.conf", NEW),
        ("/debian/50/linux", b"old"),
        ("/debian/56/linux", b"new"),
        ("/debian/56/a", b"aaaa"),
        ("/debian/56/b", b"bbbb"),
    ];
    files.extend(more);
    esp(&files)
}

#[test]
fn the_newest_entry_boots_unless_the_loader_names_another() {
    assert_eq!(boot(&debian(&[])).unwrap(), ["new", "aaaabbbb", "root=LABEL=x quiet"]);
    assert_eq!(debian(&[]).report().loader, Some(LoaderKind::BootLoaderSpecification));
    let named = debian(&[("/loader/loader.conf", b"timeout 3\ndefault *-50.conf\n")]);
    assert_eq!(boot(&named).unwrap()[0], "old");
}

#[test]
fn an_entry_whose_attempts_are_spent_comes_last_and_foreign_ones_not_at_all() {
    let spent = b"title x\nversion 9\nsort-key debian\nlinux /debian/50/linux\n".as_slice();
    let foreign = b"title x\nversion 99\narchitecture aa64\nlinux /debian/50/linux\n".as_slice();
    let examined = debian(&[
        ("/loader/entries/debian-9+0-3.conf", spent),
        ("/loader/entries/debian-99.conf", foreign),
        ("/loader/entries/empty.conf", b"title nothing\n"),
    ]);
    assert_eq!(boot(&examined).unwrap()[0], "new");
    let report = examined.report();
    assert_eq!(report.entries.len(), 3);
    assert!(report.notes.iter().any(|n| n.contains("it is for aa64")), "{:?}", report.notes);
    assert!(report.notes.iter().any(|n| n.contains("neither linux nor efi")), "{:?}", report.notes);
}

/// An EFI program of nothing but these sections.
pub(super) fn efi_program(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let (header, optional) = (0x80_usize, 240_u16);
    let first = 0x1000;
    let mut bytes = vec![0; first];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c..0x40].copy_from_slice(&(header as u32).to_le_bytes());
    bytes[header..header + 4].copy_from_slice(b"PE\0\0");
    bytes[header + 4..header + 6].copy_from_slice(&0x8664_u16.to_le_bytes());
    bytes[header + 6..header + 8].copy_from_slice(&(sections.len() as u16).to_le_bytes());
    bytes[header + 20..header + 22].copy_from_slice(&optional.to_le_bytes());
    bytes[header + 24..header + 26].copy_from_slice(&0x20b_u16.to_le_bytes());
    bytes[header + 24 + 108..header + 24 + 112].copy_from_slice(&16_u32.to_le_bytes());
    let table = header + 24 + usize::from(optional);
    for (number, (name, content)) in sections.iter().enumerate() {
        let (at, start) = (table + number * 40, bytes.len());
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        let padded = content.len().next_multiple_of(512);
        for (field, value) in [(8, content.len()), (12, start), (16, padded), (20, start)] {
            bytes[at + field..at + field + 4].copy_from_slice(&(value as u32).to_le_bytes());
        }
        bytes.extend(*content);
        bytes.resize(start + padded, 0);
    }
    bytes
}

#[test]
fn a_unified_kernel_image_has_everything_in_it() {
    let image = efi_program(&[
        (".osrel", b"NAME=x\nPRETTY_NAME=\"Debian 13\"\n"),
        (".cmdline", b"root=LABEL=x\nquiet\0"),
        (".linux", b"the kernel"),
        (".initrd", b"the initrd"),
    ]);
    let examined = esp(&[("/EFI/Linux/debian-56.efi", &image), ("/EFI/Linux/other.efi", b"MZ")]);
    assert_eq!(boot(&examined).unwrap(), ["the kernel", "the initrd", "root=LABEL=x quiet"]);
    let report = examined.report();
    assert_eq!(report.entries[0].title, "Debian 13");
    assert!(report.notes[0].starts_with("/EFI/Linux/other.efi: it is no EFI program"), "{:?}", report.notes);
}

#[test]
fn an_entry_may_name_a_unified_image_and_its_own_options() {
    let image = efi_program(&[(".linux", b"kernel")]);
    let examined = esp(&[
        ("/loader/entries/a.conf", b"title A\nefi /a.efi\noptions from-the-entry\n"),
        ("/a.efi", &image),
    ]);
    assert_eq!(boot(&examined).unwrap(), ["kernel", "", "from-the-entry"]);
}

#[test]
fn syslinux_boots_its_default() {
    let cfg = "UI vesamenu.c32\nAPPEND common\nDEFAULT two\nLABEL one\n  KERNEL /one\nLABEL two\n  MENU LABEL ^Two\n  \
        LINUX ../two\n  APPEND root=/dev/vda initrd=a.img,/b.img quiet\nLABEL tool\n COM32 reboot.c32\nINCLUDE more.cfg\n";
    let examined = root(&[
        ("/boot/syslinux/syslinux.cfg", cfg.as_bytes()),
        ("/boot/syslinux/more.cfg", b"label three\nkernel /one\n"),
        ("/boot/syslinux/a.img", b"aaaa"),
        ("/b.img", b"bbbb"),
        ("/one", b"1"),
        ("/boot/two", b"2"),
    ]);
    assert_eq!(boot(&examined).unwrap(), ["2", "aaaabbbb", "root=/dev/vda quiet"]);
    let report = examined.report();
    let titles: Vec<_> = report.entries.iter().map(|e| e.title.as_str()).collect();
    assert_eq!(titles, ["one", "Two", "three"]);
    assert_eq!(report.entries[0].command_line, "common");
    assert_eq!(report.notes, ["label tool: com32 is no kernel"]);
}

#[test]
fn syslinux_files_that_include_each_other_and_defaults_that_are_none_are_refused() {
    let error = boot(&root(&[("/syslinux.cfg", b"include /syslinux.cfg\n")])).unwrap_err();
    assert!(error.contains("include each other"), "{error}");
    let error =
        boot(&root(&[("/syslinux.cfg", b"default x\nlabel a\nkernel /k\n"), ("/k", b"k")])).unwrap_err();
    assert!(error.contains("its default \"x\" is no label"), "{error}");
    let error = boot(&root(&[("/extlinux.conf", b"label a\nmenu label A\n")])).unwrap_err();
    assert!(error.contains("no label with a kernel"), "{error}");
}
