//! Where the image of a disk is, and what becomes of one that a spec cannot name as it is.

use pinion_api::{HostDisk, HostDiskType, ImageFormat};

use super::super::Fault;
use super::super::source::{Part, quoted, shorten};
use super::MOST;

/// Folder of images that have to be copied to this host.
const FOLDER: &str = "/var/lib/pinion/images";
/// How the names of qcow2 images end.
const QCOW2: &str = ".qcow2";

/// What a disk holds. `None` where it holds nothing that could be carried over: then that is noted.
pub(super) fn image(disk: Part<'_>, vm: &str, name: &str) -> Option<HostDisk> {
    let kind = disk.attribute("type").unwrap_or("file");
    let format = disk.child("driver").and_then(|driver| driver.attribute("type")).unwrap_or("raw");
    let Some(source) = disk.child("source") else {
        let what = "source: what does it hold?";
        match disk.attribute("device") {
            Some("cdrom" | "floppy") => {
                disk.leave("not carried over: an empty drive; give it an image, or leave it out")
            }
            _ => disk.fault(|path| Fault::Missing { path, what }),
        }
        return None;
    };
    if let Some(backing) = disk.child("backingStore") {
        if backing.attribute("type").is_some() {
            backing
                .leave("the files that the image is based on are named in the image itself: copy them too");
        }
        backing.whole();
    }
    let copied = Copied { source, format, vm, name };
    let path = match kind {
        "file" => given(source, "file")?,
        "block" => given(source, "dev")?,
        "network" => return Some(copied.of_network()),
        "volume" => return Some(copied.of_pool()),
        other => {
            disk.leave(format!(
                "not carried over: disks of the type {} have no image on this host",
                quoted(other)
            ));
            return None;
        }
    };
    // A number that libvirt gives while a guest runs.
    source.attribute("index");
    Some(match format {
        "raw" => named(source, path, ImageFormat::Raw),
        "qcow2" => named(source, path, ImageFormat::Qcow2),
        other => copied.converted(path, other),
    })
}

fn given<'a>(source: Part<'a>, attribute: &'static str) -> Option<&'a str> {
    let path = source.attribute(attribute);
    if path.is_none_or(str::is_empty) {
        source.fault(|path| Fault::Missing { path, what: attribute });
    }
    path.filter(|path| !path.is_empty())
}

/// A spec knows the format by the name, and so the name must tell it.
fn named(source: Part<'_>, path: &str, format: ImageFormat) -> HostDisk {
    let disk = HostDisk { path: path.to_owned(), kind: HostDiskType::Disk, ..HostDisk::default() };
    if disk.format() == format {
        return disk;
    }
    let (word, suffix) = match format {
        ImageFormat::Qcow2 => ("qcow2", QCOW2),
        ImageFormat::Raw => ("raw", ".raw"),
    };
    let path = format!("{path}{suffix}");
    source.note(format!(
        "the image is {word}, which a spec knows by the name of the file: rename it to {}",
        quoted(&path)
    ));
    HostDisk { path, ..disk }
}

/// An image that is not on this host, or not in a format that is read: it has to be copied.
#[derive(Clone, Copy)]
struct Copied<'a> {
    source: Part<'a>,
    format: &'a str,
    vm: &'a str,
    name: &'a str,
}

impl Copied<'_> {
    /// Where it is to be.
    fn path(self) -> String {
        let suffix = if self.format == "raw" { ".img" } else { QCOW2 };
        format!("{FOLDER}/{}-{}{suffix}", self.vm, self.name)
    }

    fn disk(self) -> HostDisk {
        HostDisk { path: self.path(), kind: HostDiskType::Disk, ..HostDisk::default() }
    }

    fn of_network(self) -> HostDisk {
        let source = self.source;
        let word = |name| shorten(source.attribute(name).unwrap_or_default());
        let (protocol, name) = (word("protocol"), word("name"));
        let hosts: Vec<String> = source
            .children("host")
            .filter_map(|host| {
                host.attribute("transport");
                let name = host.attribute("name").or(host.attribute("socket"))?;
                Some(host.attribute("port").map_or_else(|| name.to_owned(), |port| format!("{name}:{port}")))
            })
            .take(MOST)
            .collect();
        let at = if hosts.is_empty() { String::new() } else { format!(" at {}", hosts.join(" ")) };
        let what = shorten(format!("{protocol} {name}{at}").trim());
        let what = what.replace("  ", " ");
        source.note(format!(
            "the image is on the network ({what:?}), and disks are files and block devices of this host: copy it to {:?} \
             (qemu-img convert), or name where it is attached",
            self.path()
        ));
        self.disk()
    }

    fn of_pool(self) -> HostDisk {
        let word = |name| shorten(self.source.attribute(name).unwrap_or_default());
        let (pool, volume) = (word("pool"), word("volume"));
        self.source.note(format!(
            "the image is the volume {volume:?} of the pool {pool:?}: put its path into the spec instead of {:?} (virsh \
             vol-path --pool POOL VOLUME)",
            self.path()
        ));
        self.disk()
    }

    fn converted(self, path: &str, format: &str) -> HostDisk {
        self.source.note(format!(
            "images are raw or qcow2, and this one is {}: qemu-img convert -O qcow2 {} {:?}",
            quoted(format),
            quoted(path),
            self.path()
        ));
        self.disk()
    }
}
