//! GRUB's configurations as distributions generate them.

use super::{boot, root};
use crate::fake::{FakeFiles, examine};
use crate::{LoaderKind, PartitionKind};

/// The parts of Debian's generated configuration that decide what boots.
const DEBIAN: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="${saved_entry}"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
function gfxmode {
	set gfxpayload="${1}"
}
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux --class os $menuentry_id_option 'simple' {
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	search --no-floppy --fs-uuid --set=root uuid-of-root
	echo	'Loading Linux 6.1.0-56 ...'
	linux	/boot/vmlinuz-56 root=UUID=1234 ro console=ttyS0,115200
	echo	'Loading initial ramdisk ...'
	initrd	/boot/ucode.img /boot/initrd.img-56
}
submenu 'Advanced options' $menuentry_id_option 'advanced' {
	menuentry 'Debian, with Linux 6.1.0-56' $menuentry_id_option 'advanced-56' {
		linux	/boot/vmlinuz-56 root=UUID=1234 ro
		initrd	/boot/initrd.img-56
	}
	menuentry 'Debian, with Linux 6.1.0-50' $menuentry_id_option 'advanced-50' {
		linux	/boot/vmlinuz-50 root=UUID=1234 ro old
	}
}
menuentry 'Firmware' { fwsetup }
"#;

fn debian<'a>(more: &[(&'a str, &'a [u8])]) -> crate::Examined {
    let mut files: Vec<(&str, &[u8])> = vec![
        ("/boot/grub/grub.cfg", DEBIAN.as_bytes()),
        ("/boot/vmlinuz-56", b"kernel 56"),
        ("/boot/vmlinuz-50", b"kernel 50"),
        ("/boot/ucode.img", b"micro"),
        ("/boot/initrd.img-56", b"initrd 56"),
    ];
    files.extend(more);
    root(&files)
}

#[test]
fn the_first_entry_boots_where_nothing_is_saved() {
    let examined = debian(&[]);
    let [kernel, initrd, line] = boot(&examined).unwrap();
    assert_eq!(kernel, "kernel 56");
    // Each initrd starts at a multiple of four.
    assert_eq!(initrd, "micro\0\0\0initrd 56");
    assert_eq!(line, "root=UUID=1234 ro console=ttyS0,115200");
    let report = examined.report();
    assert_eq!(report.loader, Some(LoaderKind::Grub));
    let ids: Vec<_> = report.entries.iter().map(|e| (e.id.as_str(), e.is_default)).collect();
    assert_eq!(ids, [("simple", true), ("advanced>advanced-56", false), ("advanced>advanced-50", false)]);
}

#[test]
fn the_saved_entry_is_found_by_id_title_and_place() {
    for saved in
        ["advanced>advanced-50", "advanced-50", "Advanced options>Debian, with Linux 6.1.0-50", "1>1"]
    {
        let environment = format!("# GRUB Environment Block\nsaved_entry={saved}\n####");
        let [kernel, _, line] = boot(&debian(&[("/boot/grub/grubenv", environment.as_bytes())])).unwrap();
        assert_eq!((kernel.as_str(), line.as_str()), ("kernel 50", "root=UUID=1234 ro old"), "{saved}");
    }
}

#[test]
fn an_entry_that_is_gone_gives_way_to_the_first_and_one_for_once_is_told() {
    let environment = b"# GRUB Environment Block\nsaved_entry=gone\nnext_entry=advanced-50\n###";
    let examined = debian(&[("/boot/grub/grubenv", environment)]);
    assert_eq!(boot(&examined).unwrap()[0], "kernel 56");
    let notes = examined.report().notes;
    assert!(notes.iter().any(|n| n.contains("next_entry=advanced-50")), "{notes:?}");
}

#[test]
fn a_default_that_is_no_linux_is_refused_with_its_name() {
    let examined = debian(&[("/boot/grub/grubenv", b"saved_entry=Firmware\n")]);
    let error = boot(&examined).unwrap_err();
    assert!(error.starts_with("BootConfigurationInvalid: GRUB: /boot/grub/grub.cfg"), "{error}");
    assert!(error.contains("\"Firmware\"") && error.contains("fwsetup"), "{error}");
}

#[test]
fn a_missing_kernel_is_named() {
    let text = "menuentry a { linux /boot/none root=/dev/vda1 }";
    let error = boot(&root(&[("/boot/grub/grub.cfg", text.as_bytes())])).unwrap_err();
    assert!(error.contains("there is no file /boot/none on hd0,gpt1"), "{error}");
}

#[test]
fn the_efi_partition_leads_to_the_configuration_on_a_boot_partition() {
    let esp = "search.fs_uuid uuid-of-boot root\nset prefix=($root)'/grub2'\nconfigfile $prefix/custom.cfg\n";
    let boot_cfg =
        "menuentry a { linux ($root)/vmlinuz a=1 $kernelopts\n initrd ($root)/initrd }\nset kernelopts=later";
    let examined = examine(vec![
        (PartitionKind::Esp, FakeFiles::new(&[("/EFI/fedora/grub.cfg", esp.as_bytes())]).labelled("esp")),
        (
            PartitionKind::Data,
            FakeFiles::new(&[
                ("/grub2/custom.cfg", boot_cfg.as_bytes()),
                ("/vmlinuz", b"kernel"),
                ("/initrd", b"initrd"),
            ])
            .labelled("boot"),
        ),
    ]);
    assert_eq!(boot(&examined).unwrap(), ["kernel", "initrd", "a=1"]);
}

#[test]
fn blscfg_takes_entries_of_the_boot_loader_specification_newest_first() {
    let cfg = "load_env -f ${config_directory}/grubenv\nload_env\nblscfg\n";
    let entry = |version: &str| {
        format!(
            "title Fedora ({version})\nversion {version}\nlinux /boot/vmlinuz-{version}\ninitrd /boot/initrd-{version} \
             $tuned_initrd\noptions $kernelopts ${{tuned}} v={version}\ngrub_class fedora\n"
        )
    };
    let (old, new) = (entry("6.9.9"), entry("6.10.1"));
    let examined = root(&[
        ("/boot/grub2/grub.cfg", cfg.as_bytes()),
        ("/boot/grub2/grubenv", b"# GRUB Environment Block\nkernelopts=root=UUID=7 ro\n###"),
        ("/boot/loader/entries/id-6.9.9.conf", old.as_bytes()),
        ("/boot/loader/entries/id-6.10.1.conf", new.as_bytes()),
        ("/boot/vmlinuz-6.9.9", b"old"),
        ("/boot/vmlinuz-6.10.1", b"new"),
        ("/boot/initrd-6.9.9", b"i"),
        ("/boot/initrd-6.10.1", b"i"),
    ]);
    let [kernel, _, line] = boot(&examined).unwrap();
    assert_eq!((kernel.as_str(), line.as_str()), ("new", "root=UUID=7 ro  v=6.10.1"));
}

#[test]
fn scripts_that_never_end_do() {
    for text in [
        "while true; do set a=b; done",
        "function f { f; }\nf\n",
        "source /boot/grub/grub.cfg\n",
        "set a=aaaaaaaaaaaaaaaa\nwhile true; do set a=\"$a$a\"; done",
        "for i in 1 2 3; do while true; do true; done; done",
        "submenu a { source /boot/grub/grub.cfg }",
    ] {
        let error = boot(&root(&[("/boot/grub/grub.cfg", text.as_bytes())])).unwrap_err();
        assert!(error.starts_with("BootConfigurationInvalid"), "{text}: {error}");
    }
}

#[test]
fn conditions_are_those_of_test() {
    for (condition, holds) in [
        ("[ a = a -a ! b = c ]", true),
        ("[ -n \"\" -o -z \"\" ]", true),
        ("[ 9 -lt 10 ]", true),
        ("[ 9 < 10 ]", false),
        ("test -d /boot", true),
        ("test -f /boot", false),
        ("[ -e /boot/k ]", true),
        ("[ ! ( a = b ) ]", true),
        ("[ ]", false),
        ("false", false),
        ("search --file /boot/k --set=x", true),
        ("search --label nobody", false),
    ] {
        let text = format!(
            "if {condition}; then set word=yes; else set word=no; fi\nmenuentry a {{ linux /boot/k word=$word }}"
        );
        let [.., line] = boot(&root(&[("/boot/grub/grub.cfg", text.as_bytes()), ("/boot/k", b"k")])).unwrap();
        assert_eq!(line, format!("word={}", if holds { "yes" } else { "no" }), "{condition}");
    }
}
