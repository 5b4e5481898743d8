//! Container images as OCI archives (image-spec 1.1), made of files without a container engine: one layer, which is the same
//! bytes whenever it is made of the same files.
//!
//! Called by `cargo xtask image` and by labs that put images into a container runtime. Runs nothing.

#![forbid(unsafe_code)]

mod qemu;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use oci_spec::OciSpecError;
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder,
    MediaType, OciLayoutBuilder, Os, RootFsBuilder, Sha256Digest,
};
use pinion_lab::{LabError, libraries};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

pub use qemu::QEMU_PACKAGES;

/// By which a container runtime finds the name of an image in an archive.
const NAME: &str = "io.containerd.image.name";
/// By which other tools do: the tag alone.
const TAG: &str = "org.opencontainers.image.ref.name";

/// Where programs are looked for.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file.
    #[error("Cannot {action} {path:?}")]
    File {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// What an image cannot be without.
    #[error("{path:?} is not there: apt-get install {packages}")]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// Packages that have it.
        packages: String,
    },
    /// Libraries of a program.
    #[error(transparent)]
    Libraries(#[from] LabError),
    /// Its description.
    #[error("Cannot describe the image {name:?}")]
    Description {
        /// The image.
        name: String,
        /// From the library.
        source: OciSpecError,
    },
}

/// What an image is made of.
#[derive(Clone, Debug, Default)]
pub struct Image {
    name: String,
    entries: BTreeMap<PathBuf, Entry>,
    entrypoint: Vec<String>,
    variables: Vec<String>,
}

#[derive(Clone, Debug)]
enum Entry {
    File(PathBuf),
    Text(&'static str),
    Link(PathBuf),
    Folder,
}

impl Image {
    /// An empty one; its name has a tag.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// One that runs a program of this machine, which has its libraries with it.
    ///
    /// # Errors
    /// When `ldd` cannot say which those are.
    pub fn of_program(name: &str, place: &str, program: &Path) -> Result<Self, OciError> {
        let mut image = Self::new(name).with_file(place, program).with_entrypoint(&[place]);
        for (place, file) in libraries(program)? {
            image = image.with_file(place, file);
        }
        Ok(image)
    }

    /// Adds a file of this machine; it can be executed in the image if it can here.
    #[must_use]
    pub fn with_file(mut self, place: impl AsRef<Path>, file: impl Into<PathBuf>) -> Self {
        self.entries.insert(inside(place.as_ref()), Entry::File(file.into()));
        self
    }

    /// Adds a file with that content.
    #[must_use]
    pub fn with_text(mut self, place: impl AsRef<Path>, content: &'static str) -> Self {
        self.entries.insert(inside(place.as_ref()), Entry::Text(content));
        self
    }

    /// Adds a variable of the environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push(format!("{name}={value}"));
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn with_link(mut self, place: impl AsRef<Path>, target: impl Into<PathBuf>) -> Self {
        self.entries.insert(inside(place.as_ref()), Entry::Link(target.into()));
        self
    }

    /// Adds an empty folder.
    #[must_use]
    pub fn with_folder(mut self, place: impl AsRef<Path>) -> Self {
        self.entries.insert(inside(place.as_ref()), Entry::Folder);
        self
    }

    /// What a container runs that says nothing else.
    #[must_use]
    pub fn with_entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|&w| w.to_owned()).collect();
        self
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// [`OciError`].
    pub fn write(&self, to: &Path) -> Result<(), OciError> {
        let failed = |source| OciError::Description { name: self.name.clone(), source };
        let layer = self.layer()?;
        let sum = digest(&layer);
        let rootfs = RootFsBuilder::default().typ("layers").diff_ids([format!("sha256:{sum}")]).build();
        let config = ConfigBuilder::default()
            .env([PATH.to_owned()].into_iter().chain(self.variables.clone()).collect::<Vec<_>>())
            .entrypoint(self.entrypoint.clone())
            .build()
            .map_err(failed)?;
        let configuration = ImageConfigurationBuilder::default()
            .architecture(Arch::Amd64)
            .os(Os::Linux)
            .rootfs(rootfs.map_err(failed)?)
            .config(config)
            .build()
            .and_then(|c| c.to_string())
            .map_err(failed)?;
        let mut blobs = Blobs::default();
        let layer = blobs.add(MediaType::ImageLayer, layer).map_err(failed)?;
        let configuration = blobs.add(MediaType::ImageConfig, configuration.into_bytes()).map_err(failed)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(configuration)
            .layers([layer])
            .build()
            .and_then(|m| m.to_string())
            .map_err(failed)?;
        let mut manifest = blobs.add(MediaType::ImageManifest, manifest.into_bytes()).map_err(failed)?;
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let names = [(NAME, self.name.as_str()), (TAG, tag)];
        manifest.set_annotations(Some(names.map(|(k, v)| (k.to_owned(), v.to_owned())).into()));
        let index = ImageIndexBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageIndex)
            .manifests([manifest])
            .build()
            .map_err(failed)?;
        // Annotations have no order of their own; in a value they are sorted.
        let index = serde_json::to_value(index).map_err(|e| failed(e.into()))?.to_string();
        let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build();
        let layout = layout.and_then(|l| l.to_string()).map_err(failed)?;
        let file = File::create(to).map_err(file_error("create", to))?;
        let mut archive = Builder::new(file);
        let written = (|| {
            add(&mut archive, Path::new("oci-layout"), layout.as_bytes(), 0o644)?;
            add(&mut archive, Path::new("index.json"), index.as_bytes(), 0o644)?;
            for (sum, blob) in &blobs.0 {
                add(&mut archive, &Path::new("blobs/sha256").join(sum), blob, 0o644)?;
            }
            archive.finish()
        })();
        written.map_err(file_error("write", to))
    }

    /// The layer: a tar, not compressed, since that would take the runtimes of labs longer than reading does.
    fn layer(&self) -> Result<Vec<u8>, OciError> {
        let mut layer = Builder::new(Vec::new());
        let mut folders = BTreeSet::new();
        for (place, entry) in &self.entries {
            for folder in above(place) {
                if folders.insert(folder) {
                    special(&mut layer, folder, EntryType::Directory, None)
                        .map_err(file_error("write", folder))?;
                }
            }
            let written = match entry {
                Entry::Folder if !folders.insert(place) => Ok(()),
                Entry::Folder => special(&mut layer, place, EntryType::Directory, None),
                Entry::Text(content) => add(&mut layer, place, content.as_bytes(), 0o644),
                Entry::Link(target) => special(&mut layer, place, EntryType::Symlink, Some(target)),
                Entry::File(from) => {
                    let (bytes, mode) = read(from)?;
                    add(&mut layer, place, &bytes, mode)
                }
            };
            written.map_err(file_error("write", place))?;
        }
        layer.into_inner().map_err(file_error("write", Path::new("the layer")))
    }
}

/// The folders that a place is in, the highest first.
fn above(place: &Path) -> Vec<&Path> {
    let mut folders: Vec<&Path> = place.ancestors().skip(1).filter(|f| !f.as_os_str().is_empty()).collect();
    folders.reverse();
    folders
}

/// A file of this machine, and what may be done with it in an image.
fn read(from: &Path) -> Result<(Vec<u8>, u32), OciError> {
    let mut file = File::open(from).map_err(file_error("open", from))?;
    let mode = file.metadata().map_err(file_error("read", from))?.permissions().mode();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(file_error("read", from))?;
    Ok((bytes, if mode & 0o111 == 0 { 0o644 } else { 0o755 }))
}

/// Contents by their digests.
#[derive(Debug, Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    fn add(&mut self, kind: MediaType, bytes: Vec<u8>) -> Result<Descriptor, OciSpecError> {
        let sum = digest(&bytes);
        let descriptor = Descriptor::new(kind, bytes.len() as u64, Sha256Digest::from_str(&sum)?);
        self.0.insert(sum, bytes);
        Ok(descriptor)
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A place as an archive has it.
fn inside(place: &Path) -> PathBuf {
    place.components().filter(|c| matches!(c, Component::Normal(_))).collect()
}

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn add<W: Write>(archive: &mut Builder<W>, place: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    archive.append_data(&mut header(EntryType::Regular, bytes.len() as u64, mode), place, bytes)
}

fn special<W: Write>(
    archive: &mut Builder<W>,
    place: &Path,
    kind: EntryType,
    target: Option<&Path>,
) -> io::Result<()> {
    let mut header = header(kind, 0, 0o755);
    match target {
        Some(target) => archive.append_link(&mut header, place, target),
        None => archive.append_data(&mut header, place, io::empty()),
    }
}

fn file_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> OciError + use<> {
    let path = path.to_owned();
    move |source| OciError::File { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn entries(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let place = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            found.insert(place, bytes);
        }
        found
    }

    #[test]
    fn an_archive_holds_what_its_index_names() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, "content").unwrap();
        let image = Image::new("pinion.dev/test:1")
            .with_file("/usr/bin/program", &program)
            .with_link("/bin/other", "../usr/bin/program")
            .with_folder("/tmp")
            .with_entrypoint(&["/usr/bin/program"]);
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        image.write(&one).unwrap();
        image.write(&two).unwrap();
        let archive = fs::read(&one).unwrap();
        assert!(archive == fs::read(&two).unwrap(), "it is the same bytes each time");
        let files = entries(&archive);
        let index = String::from_utf8(files["index.json"].clone()).unwrap();
        assert!(index.contains("pinion.dev/test:1") && files.contains_key("oci-layout"), "{index}");
        for (place, bytes) in files.iter().filter(|(place, _)| place.starts_with("blobs/")) {
            assert_eq!(place, &format!("blobs/sha256/{}", digest(bytes)));
        }
        let layer = files.values().find(|b| entries_of_layer(b)).unwrap();
        let layer = entries(layer);
        assert_eq!(layer["usr/bin/program"], b"content");
        assert!(layer.contains_key("usr/") || layer.contains_key("usr"), "{:?}", layer.keys());
    }

    fn entries_of_layer(bytes: &[u8]) -> bool {
        bytes.get(257..262) == Some(b"ustar".as_slice())
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let image = Image::new("a:1").with_file("/a", folder.path().join("gone"));
        let error = image.write(&folder.path().join("to")).unwrap_err().to_string();
        assert!(error.contains("gone"), "{error}");
    }
}
