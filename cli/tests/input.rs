//! Wrong input: each gives one clear error that says what to do, and its exit code.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const SMALL: &str = "synthetic:pack:1 [numa(memory=4294967296)] l3:1 core:4 pu:2";

const SPEC: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: a}
spec:
  domain:
    cpu: {cores: CORES, dedicatedCpuPlacement: true}
    memory: {guest: MEMORY}
    firmware: {kernelBoot: {container: {image: 'file:/boot', kernelPath: vmlinuz}}}
    devices: {autoattachPodInterface: false}
";

fn pinion(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pinion")).args(arguments).output().unwrap()
}

fn plan(file: &Path) -> (Option<i32>, String) {
    let output = pinion(&["plan", file.to_str().unwrap(), "--from", SMALL]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn plan_text(text: &[u8]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vm.yaml");
    fs::write(&file, text).unwrap();
    plan(&file)
}

fn spec(cores: &str, memory: &str) -> String {
    SPEC.replace("CORES", cores).replace("MEMORY", memory)
}

#[track_caller]
fn assert_says((code, text): (Option<i32>, String), expected: i32, words: &[&str]) {
    assert_eq!(code, Some(expected), "{text}");
    assert!(words.iter().all(|w| text.contains(w)), "{words:?} in {text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_spec_that_fits_is_placed() {
    assert_says(plan_text(spec("2", "1Gi").as_bytes()), 0, &["default/a: 2 vCPUs on dedicated CPUs"]);
}

#[test]
fn files_that_are_no_specs_are_named() {
    assert_says(plan(Path::new("/no/such/file")), 2, &["/no/such/file", "No such file"]);
    assert_says(plan(Path::new("/")), 2, &["Is a directory"]);
    assert_says(plan_text(b""), 2, &["vm.yaml"]);
    assert_says(plan_text(b"\x7fELF\0\0\xff\xfe"), 2, &["vm.yaml"]);
    assert_says(plan_text(&spec("2", "1Gi").as_bytes()[..120]), 2, &["vm.yaml"]);
    assert_says(plan_text(&vec![b'#'; 100 << 20]), 2, &["vm.yaml", "has at most 16777216"]);
}

#[test]
fn all_problems_of_a_spec_are_told_at_once_by_their_paths() {
    let text =
        spec("two", "1Gi").replace("kernelPath", "kernlPath").replace("memory: {guest", "memory: {gest");
    let said = plan_text(text.as_bytes());
    assert_says(
        said,
        2,
        &["spec.domain.cpu.cores", "kernlPath", "did you mean \"kernelPath\"", "spec.domain.memory.gest"],
    );
}

#[test]
fn what_does_not_fit_is_refused_with_what_is_short() {
    assert_says(plan_text(spec("64", "1Gi").as_bytes()), 3, &["refused", "SHORT OF", "what would fit now"]);
    assert_says(plan_text(spec("2", "64Gi").as_bytes()), 3, &["refused", "memory"]);
    let huge = spec("2", "1Gi").replace("{guest: 1Gi}", "{guest: 1Gi, hugepages: {pageSize: 2Mi}}");
    assert_says(plan_text(huge.as_bytes()), 3, &["refused", "hugepages-2Mi"]);
}

#[test]
fn the_backend_is_told_and_one_that_cannot_do_it_is_refused_field_by_field() {
    assert_says(plan_text(spec("2", "1Gi").as_bytes()), 0, &["default/a: backend native\n"]);
    let desktop = spec("2", "1Gi")
        .replace("devices: {", "devices: {autoattachGraphicsDevice: true, ")
        .replace("firmware: {", "firmware: {serial: '7', ");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vm.yaml");
    fs::write(&file, desktop).unwrap();
    let output = pinion(&["run", file.to_str().unwrap(), "--backend", "native"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = [
        "default/a needs QEMU, through libvirt: use --backend auto, or remove them",
        "  spec.domain.firmware.serial: natively, the guest has no SMBIOS tables",
        "  spec.domain.devices.autoattachGraphicsDevice: natively, the guest has no graphics",
    ];
    assert_says((output.status.code(), said), 2, &expected);
}

#[test]
fn files_that_are_no_images_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("empty.img");
    fs::write(&file, b"").unwrap();
    let inspect = |file: &Path| {
        let output = pinion(&["image", "inspect", file.to_str().unwrap()]);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    assert_says(inspect(&file), 2, &["empty.img", "is empty"]);
    assert_says(inspect(Path::new("/no/such/file")), 2, &["/no/such/file", "No such file"]);
    assert_says(inspect(Path::new("/")), 2, &["neither a file nor a block device"]);
    fs::write(&file, b"QFI\xfb and nothing of the kind").unwrap();
    assert_says(inspect(&file), 2, &["empty.img"]);
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let code = |arguments: &[&str]| pinion(arguments).status.code();
    assert_eq!(code(&["topology", "--from", "nowhere:1"]), Some(2));
    assert_eq!(code(&["topology", "--from", "xml:/no/such/file"]), Some(2));
    assert_eq!(code(&["topology", "--from", "synthetic:pack:0"]), Some(2));
    assert_eq!(code(&["topology", "--from", SMALL, "--housekeeping", "9-1"]), Some(2));
    assert_eq!(code(&["topology", "--from", SMALL, "--housekeeping", "99"]), Some(2));
    assert_eq!(code(&["devices", "-o", "svg"]), Some(2));
    assert_eq!(code(&["devices", "frobnicate"]), Some(2));
    assert_eq!(code(&["devices", "--from", "sysfs:/no/such/tree"]), Some(2));
    assert_eq!(code(&["frobnicate"]), Some(2));
}

#[test]
fn a_damaged_ledger_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger.json");
    fs::write(&ledger, "{\"apiVersion\": ").unwrap();
    let output = pinion(&["topology", "--from", SMALL, "--ledger", ledger.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("damaged"));
    assert_eq!(fs::read_to_string(&ledger).unwrap(), "{\"apiVersion\": ");
}

#[test]
fn every_format_of_every_command_is_what_it_says() {
    let topology = |format| pinion(&["topology", "--from", SMALL, "-o", format]).stdout;
    assert!(topology("svg").starts_with(b"<svg") || topology("svg").starts_with(b"<?xml"));
    let json: serde_json::Value = serde_json::from_slice(&topology("json")).unwrap();
    assert_eq!((&json["apiVersion"], &json["kind"]), (&"pinion.dev/v1alpha1".into(), &"Machine".into()));
    let doctor: serde_json::Value =
        serde_json::from_slice(&pinion(&["doctor", "-o", "json"]).stdout).unwrap();
    assert_eq!(doctor["kind"], "Diagnosis");
    for shell in ["bash", "zsh", "fish"] {
        assert!(String::from_utf8_lossy(&pinion(&["completion", shell]).stdout).contains("pinion"));
    }
    for command in ["topology", "plan", "run", "doctor", "devices", "import", "completion"] {
        let help = String::from_utf8_lossy(&pinion(&[command, "--help"]).stdout).into_owned();
        assert!(help.contains("Examples:"), "{command}: {help}");
    }
}
