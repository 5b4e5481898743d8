//! No input makes the parser panic, hang or grow without bounds.

use pinion_api::parse;
use proptest::collection::vec;
use proptest::prelude::*;

const GOOD: &str = include_str!("data/good.yaml");

/// Pieces of specs, in any order.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "apiVersion: kubevirt.io/v1\n",
        "kind: VirtualMachine\n",
        "kind: VirtualMachineInstance\n",
        "metadata:\n",
        "spec:\n",
        "  ",
        "    ",
        "- ",
        "name: a\n",
        "domain:\n",
        "cpu: ",
        "cores: ",
        "{",
        "}",
        "[",
        "]",
        ",",
        ": ",
        "&a ",
        "*a",
        "<<: ",
        "!!str ",
        "!x ",
        "| \n",
        "> \n",
        "---\n",
        "...\n",
        "\"",
        "'",
        "#",
        "\t",
        "? ",
        "~",
        "1e9",
        "010",
        "64M",
        "\u{feff}",
        "volumes:\n",
        "devices: {}\n",
        "\\ud83d",
        "%YAML 1.1\n",
        "\r\n",
        "é",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn bytes(input in vec(any::<u8>(), 0..512)) {
        let _ = parse(input);
    }

    #[test]
    fn pieces(input in vec(piece(), 0..60)) {
        let _ = parse(input.concat());
    }

    #[test]
    fn good_specs_with_damage(at in 0..GOOD.len(), remove in 0_usize..40, add in vec(piece(), 0..4)) {
        let mut bytes = GOOD.as_bytes().to_vec();
        let end = (at + remove).min(bytes.len());
        bytes.splice(at..end, add.concat().into_bytes());
        // What is accepted is accepted again after being written.
        if let Ok(documents) = parse(&bytes) {
            for document in documents {
                let instance = document.into_instance();
                let json = serde_json::to_string(&instance).unwrap();
                let again = parse(&json).unwrap_or_else(|problems| panic!("{json}: {problems}"));
                let again = again.into_iter().next().unwrap().into_instance();
                prop_assert_eq!(again, instance);
            }
        }
    }
}

#[test]
fn the_good_spec_is_good() {
    parse(GOOD).unwrap();
}
