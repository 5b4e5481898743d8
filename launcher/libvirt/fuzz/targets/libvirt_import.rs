//! A domain's document, from anyone: what comes of it is a spec that can be read again and is the same, or what is wrong
//! with it, in words.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pinion_api::Document;
use pinion_libvirt::import;

fuzz_target!(|input: &[u8]| {
    match import(input, "default") {
        Ok(imported) => {
            let text = serde_json::to_string(&imported.instance).expect("a spec that can be written");
            let read = pinion_api::parse(&text).unwrap_or_else(|p| panic!("{p}: {text}"));
            assert_eq!(read, [Document::VirtualMachineInstance(Box::new(imported.instance))]);
            assert!(imported.notes.iter().all(|note| note.path.starts_with('/') && !note.text.is_empty()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
