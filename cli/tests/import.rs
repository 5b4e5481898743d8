//! `pinion import`: what it hands over, and what it says where there is nobody to hand over to.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program that it becomes, as far as this command is concerned: it prints its arguments, and fails.
const STAND_IN: &str = "#!/bin/sh\nfor word; do echo \"[$word]\"; done\necho said >&2\nexit 2\n";

/// The command in a folder of its own, where nothing is beside it.
fn alone() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let pinion = folder.path().join("pinion");
    let built = Path::new(env!("CARGO_BIN_EXE_pinion"));
    fs::hard_link(built, &pinion).or_else(|_| fs::copy(built, &pinion).map(|_| ())).unwrap();
    (folder, pinion)
}

fn run(pinion: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(pinion).arg("import").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn without_the_program_of_libvirt_it_says_what_to_install() {
    let (_folder, pinion) = alone();
    let (code, out, said) = run(&pinion, &["web"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{said}");
    for word in ["pinion-launcher-libvirt", "is not there", "install it beside pinion", "docs/libvirt.md"] {
        assert!(said.contains(word), "{word:?} in {said}");
    }
}

#[test]
fn options_are_handed_over_and_the_exit_code_is_that_of_the_program() {
    let (folder, pinion) = alone();
    let beside = folder.path().join("pinion-launcher-libvirt");
    fs::write(&beside, STAND_IN).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, out, said) =
        run(&pinion, &["--connect", "test:///default", "-n", "lab", "-o", "json", "--", "-odd"]);
    let expected =
        "[import]\n[--namespace]\n[lab]\n[--output]\n[json]\n[--connect]\n[test:///default]\n[--]\n[-odd]\n";
    assert_eq!((code, out.as_str(), said.as_str()), (Some(2), expected, "said\n"));
    let (_, out, _) = run(&pinion, &["-f", "-"]);
    assert_eq!(out, "[import]\n[--namespace]\n[default]\n[--output]\n[yaml]\n[--file]\n[-]\n");
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let (_folder, pinion) = alone();
    for arguments in
        [&[][..], &["a", "b"], &["a", "--file", "b"], &["a", "-o", "svg"], &["--file", "b", "--connect", "c"]]
    {
        let (code, out, said) = run(&pinion, arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {said}");
    }
    let (code, help, _) = run(&pinion, &["--help"]);
    assert_eq!(code, Some(0));
    assert!(help.contains("Examples:") && help.contains("virsh dumpxml"), "{help}");
}
