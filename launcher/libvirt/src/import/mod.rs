//! From libvirt's domain XML to a VM spec. Pure, but for `program`.
//!
//! The reverse of [`crate::domain`], for documents that others wrote. A file per part of the document; each reads through
//! [`source::Part`], and what nobody has read in the end is noted. So nothing is dropped without a word. At last the spec
//! goes through the checks that every spec goes through. Source: libvirt's "Domain XML format".

mod cpu;
mod devices;
mod firmware;
mod identity;
mod memory;
mod platform;
pub(crate) mod program;
mod reason;
mod settle;
mod source;
mod tune;
mod words;

use std::fmt;

use pinion_api::{API_VERSION, VirtualMachineInstance};
use roxmltree::{Document, ParsingOptions};

use source::{Part, Record, quoted};

/// Largest document that is read, bytes.
pub const MOST_BYTES: usize = 1 << 20;
/// Most elements, texts and comments of a document.
const MOST_NODES: u32 = 100_000;
/// Most attributes between two elements: reading them takes time by the square of their number.
const MOST_ATTRIBUTES: usize = 1000;

/// A spec, and what of the document is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The spec: one that passes every check.
    pub instance: VirtualMachineInstance,
    /// What is not carried over, or otherwise than it was, in the order of the document.
    pub notes: Vec<Note>,
}

/// Something that is not carried over, or otherwise than it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The element: `/domain/devices/disk[2]/target`.
    pub path: String,
    /// Why, and what to do.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

/// Why a document gives no spec.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is larger than a domain's.
    #[error("The document is too large for one of a domain: at most {MOST_BYTES} bytes are read")]
    TooLarge,
    /// It is no text.
    #[error("The document is not text: byte {0} is not UTF-8")]
    NotText(usize),
    /// It is no XML, or has what a domain's never has.
    #[error("The document is not XML that libvirt writes")]
    Syntax(#[source] roxmltree::Error),
    /// An element with more attributes than any has.
    #[error("The document has an element with more than {MOST_ATTRIBUTES} attributes")]
    TooManyAttributes,
    /// It describes something else.
    #[error("The document is {0}, not a domain: give what `virsh dumpxml DOMAIN` prints")]
    NotADomain(String),
    /// Parts of it are wrong: all that are.
    #[error("The domain cannot be imported:{}", listed(.0))]
    Faults(Vec<Fault>),
}

/// A part of a document that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not what it should be.
    #[error("{path}: {text} is no {what}")]
    Malformed {
        /// The element.
        path: String,
        /// What it says.
        text: String,
        /// What it should be.
        what: &'static str,
    },
    /// It is beyond what can be counted.
    #[error("{path}: {text} is too large")]
    TooLarge {
        /// The element.
        path: String,
        /// What it says.
        text: String,
    },
    /// It lacks something.
    #[error("{path}: has no {what}")]
    Missing {
        /// The element.
        path: String,
        /// What it lacks.
        what: &'static str,
    },
    /// It is a guest that cannot be one here.
    #[error("{path}: {what}")]
    Unsupported {
        /// The element.
        path: String,
        /// Why not.
        what: String,
    },
    /// The spec that it gives does not pass the checks.
    #[error("{path}: {field} in the spec: {message}")]
    Refused {
        /// The element.
        path: String,
        /// The field that it gives.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

impl Fault {
    /// The element that is wrong.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Malformed { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Missing { path, .. }
            | Self::Unsupported { path, .. }
            | Self::Refused { path, .. } => path,
        }
    }
}

fn listed(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// Reads the document of a domain; the guest is to be in that namespace.
///
/// # Errors
/// Everything that is wrong with it at once.
pub fn import(document: &[u8], namespace: &str) -> Result<Imported, ImportError> {
    if document.len() > MOST_BYTES {
        return Err(ImportError::TooLarge);
    }
    let text = str::from_utf8(document).map_err(|error| ImportError::NotText(error.valid_up_to()))?;
    if text.split('<').any(|piece| piece.bytes().filter(|byte| *byte == b'=').count() > MOST_ATTRIBUTES) {
        return Err(ImportError::TooManyAttributes);
    }
    let options = ParsingOptions { nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(ImportError::Syntax)?;
    let root = document.root_element();
    if root.tag_name().name() != "domain" || root.tag_name().namespace().is_some() {
        return Err(ImportError::NotADomain(format!("<{}>", source::shorten(root.tag_name().name()))));
    }
    let record = Record::default();
    let instance = instance(Part::root(root, &record), namespace);
    let settled = settle::settle(&instance, &record);
    record.note_the_rest(root);
    let mut faults = record.faults();
    let instance = match settled {
        Ok(instance) => instance,
        Err(refused) => {
            // What is wrong with an element is why what it gives is refused.
            let known: Vec<String> = faults.iter().map(|fault| fault.path().to_owned()).collect();
            faults.extend(refused.into_iter().filter(|fault| !known.iter().any(|path| path == fault.path())));
            VirtualMachineInstance::default()
        }
    };
    if faults.is_empty() {
        Ok(Imported { instance, notes: record.notes() })
    } else {
        Err(ImportError::Faults(faults))
    }
}

fn instance(domain: Part<'_>, namespace: &str) -> VirtualMachineInstance {
    let mut instance = VirtualMachineInstance {
        api_version: API_VERSION.to_owned(),
        kind: "VirtualMachineInstance".to_owned(),
        metadata: identity::metadata(domain, namespace),
        ..VirtualMachineInstance::default()
    };
    hypervisor(domain);
    let name = instance.name().to_owned();
    let spec = &mut instance.spec;
    identity::uuid(domain, &name, spec);
    memory::memory(domain, spec);
    cpu::cpu(domain, spec);
    tune::tune(domain, spec);
    firmware::os(domain, spec);
    platform::platform(domain, spec);
    devices::devices(domain, &name, spec);
    instance
}

/// Only guests of QEMU can be taken as they are.
fn hypervisor(domain: Part<'_>) {
    match domain.attribute("type") {
        None | Some("kvm") => {}
        Some("qemu") => domain.note_attribute("type", "the guest ran by emulation: it runs under KVM"),
        Some(other) => {
            let what = format!("a guest of {}, not of QEMU: convert it first (virt-v2v)", quoted(other));
            domain.fault(|path| Fault::Unsupported { path, what });
        }
    }
}
