//! Specs of domains that others wrote, and documents that nobody should have written.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics fails")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use pinion_libvirt::{Fault, ImportError, MOST_BYTES, Note, import};
use serde_json::{Value, json};

/// Documents as other programs write them.
const FOREIGN: [&str; 5] = ["bios-ide", "q35-uefi-tpm", "windows", "pinned-numa", "openstack-rbd"];
/// Longest that a document may take that is made to take long.
const LONG: Duration = Duration::from_secs(20);

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/import/{name}.xml"))
}

fn program(arguments: &[&str], input: Option<&Path>) -> Output {
    let input = input.map_or_else(Stdio::null, |file| fs::File::open(file).unwrap().into());
    Command::new(env!("CARGO_BIN_EXE_pinion-launcher-libvirt")).args(arguments).stdin(input).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn documents_of_others_give_golden_specs_and_notes() {
    for name in FOREIGN {
        let output = program(&["import", "--file", file(name).to_str().unwrap()], None);
        let (spec, notes) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{name}: {notes}");
        insta::assert_snapshot!(name, format!("{spec}---\n{notes}"));
        let parsed = pinion_api::parse(&spec).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_eq!(parsed.len(), 1, "{name}");
    }
}

#[test]
fn documents_of_others_are_ones_that_libvirt_accepts() {
    let validator = Path::new("/usr/bin/virt-xml-validate");
    if !validator.exists() {
        println!(
            "skipped: there is no virt-xml-validate (libvirt-clients) to check documents by libvirt's schema"
        );
        return;
    }
    for name in FOREIGN {
        let done = Command::new(validator).arg(file(name)).arg("domain").output().unwrap();
        assert!(done.status.success(), "{name}: {}{}", text(&done.stderr), text(&done.stdout));
    }
}

#[test]
fn json_is_the_same_spec_and_standard_input_the_same_document() {
    let path = file("windows");
    let yaml = program(&["import", "-f", path.to_str().unwrap(), "-n", "lab"], None);
    let json = program(&["import", "-f", "-", "-n", "lab", "-o", "json"], Some(&path));
    let value: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(pinion_api::plain_yaml(&text(&yaml.stdout)).unwrap(), value);
    assert_eq!((&value["metadata"]["namespace"], yaml.stderr), (&"lab".into(), json.stderr));
}

#[test]
fn the_namespace_in_front_of_a_name_is_no_part_of_it() {
    let document = fs::read_to_string(file("pinned-numa")).unwrap().replace("upf-1", "lab_upf-1");
    let name = |namespace| import(document.as_bytes(), namespace).unwrap().instance.full_name();
    assert_eq!(name("lab"), "lab/upf-1");
    assert_eq!(name("default"), "default/lab-upf-1");
}

#[test]
fn what_is_no_domain_is_named_with_exit_code_2_and_nothing_on_standard_output() {
    let folder = std::env::temp_dir().join(format!("pinion-import-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let cases: [(&str, &[u8], &[&str]); 6] = [
        ("empty.xml", b"", &["empty.xml", "not XML"]),
        ("binary.xml", b"\x7fELF\xff\xfe", &["binary.xml", "byte 4 is not UTF-8"]),
        ("network.xml", b"<network><name>a</name></network>", &["<network>, not a domain", "virsh dumpxml"]),
        ("entity.xml", b"<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>", &["not XML", "DTD"]),
        (
            "hollow.xml",
            b"<domain/>",
            &["/domain: has no name", "/domain: has no memory", "/domain: has no vcpu"],
        ),
        ("xen.xml", b"<domain type='xen'/>", &["/domain: a guest of \"xen\"", "virt-v2v"]),
    ];
    for (name, document, words) in cases {
        let path = folder.join(name);
        fs::write(&path, document).unwrap();
        let output = program(&["import", "--file", path.to_str().unwrap()], None);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{name}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{name}: {words:?} in {said}");
    }
    fs::remove_dir_all(folder).unwrap();
    let output = program(&["import", "--file", "/no/such/file"], None);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/no/such/file"));
}

/// A document with pieces put in the place of others.
fn with(name: &str, pieces: &[(&str, &str)]) -> String {
    let document = fs::read_to_string(file(name)).unwrap();
    pieces.iter().fold(document, |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replace(old, new)
    })
}

fn faults(document: &str) -> Vec<Fault> {
    match import(document.as_bytes(), "default") {
        Err(ImportError::Faults(faults)) => faults,
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_by_its_path() {
    let document = with(
        "pinned-numa",
        &[
            ("9bb4b9c6-0f0f-4d4b-8a9e-5a3f8c9d7e10", "not-a-uuid"),
            ("cpuset=\"62\"", "cpuset=\"9-1\""),
            ("priority=\"50\"", "priority=\"high\""),
            ("sockets=\"2\" cores=\"2\"", "sockets=\"2\" cores=\"3\""),
            ("bus=\"0xaf\"", "bus=\"0xzz\""),
            ("<source file=\"/srv/upf/images/data.raw\"/>", ""),
            ("arch=\"x86_64\"", "arch=\"aarch64\""),
        ],
    );
    let faults = faults(&document);
    let paths: Vec<&str> = faults.iter().map(Fault::path).collect();
    let expected = [
        "/domain/uuid",
        "/domain/cputune/vcpupin[6]",
        "/domain/cputune/vcpusched[1]",
        "/domain/os/type",
        "/domain/cpu/topology",
        "/domain/devices/disk",
        "/domain/devices/hostdev[1]/source/address",
    ];
    assert_eq!(paths, expected, "{faults:#?}");
}

/// A spec as JSON, and its notes in a line each.
fn imported(document: &str) -> (Value, String) {
    let imported = import(document.as_bytes(), "default").unwrap();
    let notes: Vec<String> = imported.notes.iter().map(ToString::to_string).collect();
    (serde_json::to_value(imported.instance).unwrap(), notes.join("\n"))
}

#[test]
fn fields_are_those_that_say_the_same() {
    let (cpu, clock) = ("/spec/domain/cpu", "/spec/domain/clock");
    for (name, old, new, field, expected) in [
        ("pinned-numa", "cpuset=\"62\"", "cpuset=\"2\"", format!("{cpu}/dedicatedCpuPlacement"), json!(true)),
        (
            "pinned-numa",
            "cpuset=\"0,40\"",
            "cpuset=\"0-3\"",
            format!("{cpu}/isolateEmulatorThread"),
            Value::Null,
        ),
        ("pinned-numa", "1-7,^4", "0-7,^4", format!("{cpu}/realtime"), json!({})),
        ("pinned-numa", "host-passthrough", "maximum", format!("{cpu}/model"), json!("host-passthrough")),
        (
            "openstack-rbd",
            "cpuset=\"4-15\"",
            "cpuset=\"4\"",
            format!("{cpu}/dedicatedCpuPlacement"),
            Value::Null,
        ),
        ("openstack-rbd", "8388608", "8388607", "/spec/domain/memory/guest".into(), json!("8Gi")),
        (
            "openstack-rbd",
            "<clock offset=\"utc\"",
            "<clock offset=\"variable\" adjustment=\"-60\" basis=\"utc\"",
            format!("{clock}/utc/offsetSeconds"),
            json!(-60),
        ),
        (
            "openstack-rbd",
            "<clock offset=\"utc\"",
            "<clock offset=\"timezone\" timezone=\"Asia/Tokyo\"",
            format!("{clock}/timezone"),
            json!("Asia/Tokyo"),
        ),
        (
            "windows",
            "iothread=\"1\"",
            "iothread=\"2\"",
            "/spec/domain/devices/disks/0/dedicatedIOThread".into(),
            Value::Null,
        ),
        (
            "windows",
            "<hyperv mode=\"custom\">",
            "<hyperv mode=\"passthrough\">",
            "/spec/domain/features/hypervPassthrough".into(),
            json!({}),
        ),
        (
            "windows",
            "<on_reboot>destroy",
            "<on_reboot>restart",
            "/spec/domain/rebootPolicy".into(),
            Value::Null,
        ),
        (
            "bios-ide",
            "<os>",
            "<os><bios useserial='yes'/>",
            "/spec/domain/firmware/bootloader/bios/useSerial".into(),
            json!(true),
        ),
        ("bios-ide", " current='1'", "", format!("{cpu}/sockets"), json!(2)),
        (
            "bios-ide",
            "<target dev='hda' bus='ide'/>",
            "<target dev='vda'/>",
            "/spec/domain/devices/disks/0/disk/bus".into(),
            json!("virtio"),
        ),
    ] {
        let (spec, notes) = imported(&with(name, &[(old, new)]));
        let found = spec.pointer(&field).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{name}, {new}: {field}\n{notes}");
    }
}

#[test]
fn notes_say_what_to_do() {
    for (name, old, new, note) in [
        (
            "pinned-numa",
            "nodeset=\"0-1\"/>\n    </huge",
            "nodeset=\"1\"/>\n    </huge",
            "/domain/memoryBacking/hugepages: all cells",
        ),
        (
            "pinned-numa",
            "unit=\"G\" nodeset=\"0-1\"/>",
            "unit=\"G\"/><page size=\"2\" unit=\"M\"/>",
            "all of 2Mi",
        ),
        (
            "pinned-numa",
            " managed=\"no\"/>\n      <model",
            "/>\n      <model",
            "interface[1]/target: the tap device has to be there",
        ),
        (
            "pinned-numa",
            "cpuset=\"62\"",
            "cpuset=\"2\"",
            "vcpusched[1]: real-time vCPUs need CPUs of their own",
        ),
        (
            "pinned-numa",
            "<memory unit=\"KiB\">33554432",
            "<memory unit=\"KiB\">33554431",
            "/domain/memory: 34359737344 bytes: the cells have",
        ),
        (
            "windows",
            "<source network=",
            "<source portgroup=\"p\" network=",
            "interface[2]/source/@portgroup: \"p\": not carried over",
        ),
        ("windows", "iothread=\"3\"", "queues=\"8\"", "/domain/devices/controller/driver: not carried over"),
        (
            "windows",
            "model=\"virtio-scsi\"",
            "model=\"lsilogic\"",
            "\"lsilogic\": SCSI disks are on a virtio controller",
        ),
        (
            "windows",
            "offset=\"localtime\"",
            "offset=\"absolute\" start=\"0\"",
            "/domain/clock: offset \"absolute\"",
        ),
        ("bios-ide", "<boot dev='network'/>", "<boot dev='fd'/>", "/domain/os/boot[3]: \"fd\""),
        ("bios-ide", "type='kvm' id", "type='qemu' id", "/domain/@type: the guest ran by emulation"),
        ("bios-ide", "<vcpu ", "<vcpu cpuset='1-2' ", "/domain/vcpu/@cpuset: \"1-2\""),
        ("q35-uefi-tpm", "iothread=\"1\" ", "", "/domain/iothreads: no virtio disk"),
    ] {
        let (_, notes) = imported(&with(name, &[(old, new)]));
        assert!(notes.contains(note), "{name}, {new}: no {note:?} in\n{notes}");
    }
}

#[test]
fn numbers_that_mean_nothing_are_refused() {
    let memory = "<memory unit=\"KiB\">33554432</memory>";
    for (old, new) in [
        (memory, "<memory unit=\"EiB\">18446744073709551615</memory>"),
        (memory, "<memory unit=\"E\">17</memory>"),
        (memory, "<memory unit=\"furlong\">1</memory>"),
        (memory, "<memory>-1</memory>"),
        (memory, "<memory>1e9</memory>"),
        (memory, "<memory/>"),
        ("memory=\"16777216\" unit=\"KiB\"", "memory=\"18446744073709551615\" unit=\"TiB\""),
        ("size=\"1\" unit=\"G\"", "size=\"3\" unit=\"G\""),
        ("cpuset=\"2-17\">8<", ">0<"),
        ("cpuset=\"2-17\">8<", ">4294967296<"),
        ("cpuset=\"2-17\">8<", ">999999<"),
        ("sockets=\"2\" cores=\"2\"", "sockets=\"4294967295\" cores=\"4294967295\""),
        ("sockets=\"2\" cores=\"2\"", "sockets=\"0\" cores=\"4\""),
        ("vcpu=\"7\" cpuset=\"63\"", "vcpu=\"seven\" cpuset=\"63\""),
        ("cpuset=\"0,40\"", "cpuset=\"0-99999999999\""),
        ("bus=\"0x3b\"", "bus=\"0x13b\""),
        ("02:00:00:00:01:01", "02:00:00:00:01"),
        ("tap-mgmt", "a name that is too long"),
        ("/srv/upf/images/data.raw", "../data.raw"),
        ("<kernel>/srv", "<kernel>srv"),
    ] {
        assert!(!faults(&with("pinned-numa", &[(old, new)])).is_empty(), "{new}");
    }
}

#[test]
fn no_document_that_is_cut_off_or_damaged_makes_it_panic() {
    let document = fs::read(file("windows")).unwrap();
    for end in 0..document.len() {
        let _ = import(&document[..end], "default");
    }
    for (at, new) in (0..document.len()).step_by(11).zip(b"0<\"-9/ '&\xff".iter().cycle()) {
        let mut document = document.clone();
        document[at] = *new;
        let _ = import(&document, "default");
    }
}

#[test]
fn documents_that_are_made_to_take_long_do_not() {
    let fill = |unit: &str| unit.repeat((MOST_BYTES - 4096) / unit.len().max(1));
    let inside = |middle: &str| format!("<domain><name>a</name>{middle}</domain>");
    let mut attributes = String::new();
    for number in 0..990 {
        let _ = write!(attributes, " a{number}=''");
    }
    let documents = [
        inside(&(fill("<a>").get(..180_000).unwrap().to_owned() + &"</a>".repeat(60_000))),
        inside(&fill("<a>")),
        inside(&"<b/>".repeat(90_000)),
        inside(&format!("<devices>{}</devices>", "<disk/>".repeat(90_000))),
        inside(&format!("<devices>{}</devices>", "<interface type='bridge'/>".repeat(30_000))),
        inside(&format!("<cputune>{}</cputune>", "<vcpupin vcpu='1' cpuset='0-8191'/>".repeat(25_000))),
        inside(&format!("<cputune><emulatorpin cpuset='{}0'/></cputune>", fill("0-8191,"))),
        inside(&format!("<a{attributes}/>").repeat(80)),
        inside(&format!("<description>{}</description>", fill("é"))),
        format!("<{0}>", fill("long")),
    ];
    for document in documents {
        assert!(document.len() <= MOST_BYTES, "{}", document.len());
        let began = Instant::now();
        let error = import(document.as_bytes(), "default").unwrap_err();
        assert!(began.elapsed() < LONG, "{:?}: {}", began.elapsed(), document.get(..200).unwrap_or_default());
        assert!(error.to_string().len() < 100_000);
    }
    let wide = format!("<domain{}/>", (0..2000).map(|n| format!(" a{n}=''")).collect::<String>());
    assert!(matches!(import(wide.as_bytes(), "default"), Err(ImportError::TooManyAttributes)));
    assert!(matches!(import(&vec![b' '; MOST_BYTES + 1], "default"), Err(ImportError::TooLarge)));
}

#[test]
fn notes_of_a_document_without_end_have_one() {
    let document = with("openstack-rbd", &[("</domain>", &("<unknown/>".repeat(5000) + "</domain>"))]);
    let notes = import(document.as_bytes(), "default").unwrap().notes;
    assert!((100..1000).contains(&notes.len()), "{}", notes.len());
    assert!(notes.last().unwrap().text.ends_with("more parts of it are not carried over"));
}

#[test]
fn a_domain_is_asked_for_by_name_number_or_uuid() {
    // libvirt's own driver for tests: a daemon in this process, with one domain, which is no guest of QEMU.
    let asked = |name| {
        let output = program(&["import", "--connect", "test:///default", name], None);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{name}");
        text(&output.stderr)
    };
    for name in ["test", "1", "6695eb01-f6a4-8304-79aa-97f2502e193f"] {
        assert!(asked(name).contains("a guest of \"test\", not of QEMU"), "{name}: {}", asked(name));
    }
    assert!(asked("nobody").contains("There is no domain \"nobody\""), "{}", asked("nobody"));
    let output = program(&["import", "--connect", "nowhere:///", "test"], None);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Cannot reach libvirt at \"nowhere:///\""));
}

/// Elements in which nothing is looked for: places on the guest's buses, controllers, which the first's note counts, and
/// what each guest has anyway (console, agent's channel, no balloon, no backing file).
const BARE: [&str; 7] =
    ["address", "controller", "serial", "console", "channel", "memballoon", "backingStore"];

/// Where an element is, as notes say it.
fn path(node: roxmltree::Node<'_, '_>) -> String {
    let same = |other: &roxmltree::Node<'_, '_>| other.is_element() && other.tag_name() == node.tag_name();
    let Some(parent) = node.parent_element() else { return "/domain".to_owned() };
    let all: Vec<_> = parent.children().filter(same).collect();
    let number = all.iter().position(|other| *other == node).map_or(0, |at| at + 1);
    let number = if all.len() > 1 { format!("[{number}]") } else { String::new() };
    format!("{}/{}{number}", path(parent), node.tag_name().name())
}

#[test]
fn what_nobody_has_heard_of_is_noted_wherever_it_is() {
    for name in FOREIGN {
        let document = fs::read_to_string(file(name)).unwrap();
        let notes = |document: &str| import(document.as_bytes(), "default").unwrap().notes;
        let usual = notes(&document);
        let tree = roxmltree::Document::parse(&document).unwrap();
        for node in tree.descendants().filter(|node| node.is_element()) {
            let start = node.range().start + 1;
            let end = document[start..].find(|c: char| c.is_whitespace() || "/>".contains(c)).unwrap();
            let mut changed = document.clone();
            changed.insert_str(start + end, " unheard-of=''");
            // What is noted as a whole needs no note for a part.
            let as_a_whole = |note: &Note| {
                let above = node.ancestors().filter(|node| node.is_element()).map(path);
                above.filter(|path| path.matches('/').count() > 2).any(|path| path == note.path)
                    || (note.path.matches('/').count() == 2 && path(node).starts_with(&note.path))
            };
            let bare = node.ancestors().any(|node| BARE.contains(&node.tag_name().name()));
            let told = bare || notes(&changed) != usual || usual.iter().any(as_a_whole);
            assert!(told, "{name}: {}", path(node));
        }
    }
}
