//! `pinion-launcher-libvirt import`, which `pinion import` becomes: reads a document, prints the spec and the notes.
//!
//! Reads only: libvirt is asked over a connection that cannot change anything.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use pinion_api::VirtualMachineInstance;
use pinion_launcher::chain;
use serde_json::Value;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt::sys;

use super::{ImportError, Imported, MOST_BYTES, import};
use crate::hypervisor::DAEMON;

/// One byte more than is imported: what is longer is refused without having been read whole.
const LONGEST: u64 = MOST_BYTES as u64 + 1;

/// Write a VM spec for an existing domain of libvirt
#[derive(Debug, Parser)]
#[command(
    name = "import",
    bin_name = "pinion-launcher-libvirt import",
    version,
    after_help = "Examples:
  pinion-launcher-libvirt import web > web.yaml
  virsh dumpxml --inactive web | pinion-launcher-libvirt import --file -"
)]
struct Arguments {
    /// Domain: its name, UUID or number
    #[arg(value_name = "DOMAIN", required_unless_present = "file", conflicts_with = "file")]
    domain: Option<String>,
    /// Document to read instead, as `virsh dumpxml` prints it; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where libvirt is
    #[arg(short, long, value_name = "URI", default_value = DAEMON)]
    connect: String,
    /// Namespace of the VM
    #[arg(short, long, value_name = "NAMESPACE", default_value = pinion_api::DEFAULT_NAMESPACE)]
    namespace: String,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// As `kubectl get -o yaml`
    Yaml,
    /// As `kubectl get -o json`
    Json,
}

/// Why nothing was printed.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    #[error("Cannot read {0:?}: give the document that `virsh dumpxml` prints, or - for standard input")]
    Read(PathBuf, #[source] io::Error),
    #[error("Cannot reach libvirt at {0:?}: is its daemon running, and may this user talk to it?")]
    Connect(String, #[source] virt::error::Error),
    #[error("There is no domain {0:?} at {1:?}: see `virsh list --all`")]
    NoDomain(String, String),
    #[error("libvirt cannot describe the domain {0:?}")]
    Describe(String, #[source] virt::error::Error),
    #[error("{0}")]
    Import(String, #[source] ImportError),
    #[error("Cannot write the spec")]
    Write(#[source] io::Error),
}

impl ProgramError {
    /// As those of `pinion`: 2 for invalid input.
    fn code(&self) -> ExitCode {
        match self {
            Self::Read(..) | Self::NoDomain(..) | Self::Import(..) => ExitCode::from(2),
            Self::Connect(..) | Self::Describe(..) | Self::Write(..) => ExitCode::from(1),
        }
    }
}

/// The whole program; the first argument is the program's name, the second `import`.
#[must_use]
pub fn import_program() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = words.next().unwrap_or_default();
    let arguments = Arguments::parse_from(std::iter::once(name).chain(words));
    match run(&arguments, &program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {}", chain(&error as &dyn Error));
            error.code()
        }
    }
}

fn run(arguments: &Arguments, program: &str) -> Result<(), ProgramError> {
    let (what, document) = read(arguments)?;
    let imported = import(&document, &arguments.namespace).map_err(|e| ProgramError::Import(what, e))?;
    print(&text(&imported.instance, arguments.output))?;
    tell(&imported, program);
    Ok(())
}

/// The document, and what it is called in messages.
fn read(arguments: &Arguments) -> Result<(String, Vec<u8>), ProgramError> {
    if let Some(file) = &arguments.file {
        let bytes = bytes(file).map_err(|e| ProgramError::Read(file.clone(), e))?;
        let dash = file == Path::new("-");
        return Ok((if dash { "Standard input".to_owned() } else { file.display().to_string() }, bytes));
    }
    let domain = arguments.domain.clone().unwrap_or_default();
    let document = describe(&domain, &arguments.connect)?;
    Ok((domain, document.into_bytes()))
}

fn bytes(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(LONGEST).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(LONGEST).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The document of a domain as it is defined, not as it runs: without what libvirt makes up for a run.
fn describe(name: &str, uri: &str) -> Result<String, ProgramError> {
    virt::error::clear_error_callback();
    let connect = Connect::open_read_only(Some(uri)).map_err(|e| ProgramError::Connect(uri.to_owned(), e))?;
    let found = Domain::lookup_by_name(&connect, name)
        .or_else(|error| Domain::lookup_by_uuid_string(&connect, name).map_err(|_| error))
        .or_else(|error| {
            let id = name.parse().ok().and_then(|id| Domain::lookup_by_id(&connect, id).ok());
            id.ok_or(error)
        });
    let domain = found.map_err(|error| match error.code() {
        ErrorNumber::NoDomain => ProgramError::NoDomain(name.to_owned(), uri.to_owned()),
        _ => ProgramError::Describe(name.to_owned(), error),
    })?;
    let described = domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE);
    described.map_err(|error| ProgramError::Describe(name.to_owned(), error))
}

fn text(instance: &VirtualMachineInstance, format: Format) -> String {
    let value: Value = serde_json::to_value(instance).unwrap_or_default();
    match format {
        Format::Yaml => pinion_api::to_yaml(&value),
        Format::Json => format!("{value:#}\n"),
    }
}

/// A closed pipe is no error of ours.
fn print(text: &str) -> Result<(), ProgramError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(ProgramError::Write(e)),
        _ => Ok(()),
    }
}

/// What is not in the spec, and which backend it takes.
fn tell(imported: &Imported, program: &str) {
    for note in &imported.notes {
        eprintln!("{program}: note: {note}");
    }
    let needs = imported.instance.needs_libvirt();
    let fields: Vec<String> = needs.iter().map(|need| need.path.to_string()).collect();
    if !fields.is_empty() {
        eprintln!(
            "{program}: it runs on QEMU, through libvirt, for what the native virtual machine monitor has not: {}",
            fields.join(", ")
        );
    }
}
