//! Where a guest in a pod finds what its volumes hold.
//!
//! Pure. The controller writes the pod's volumes from [`PodVolumes::mounts`]; the launcher in that pod looks for files
//! where the same functions say. Nothing else decides on a path inside a pod.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Disk, DownwardApiFile, HostDiskType, InstanceSpec, Volume};

/// Folder of everything but devices.
const ROOT: &str = "/run/pinion";
/// Folder of block devices: the container's own `/dev`, which is in memory.
const DEVICES: &str = "/dev/pinion";
/// Name of the image on a claim with a file system. Source: KubeVirt.
const CLAIM_IMAGE: &str = "disk.img";
/// What a file system takes of a claim, in percent. Source: `filesystemOverhead` of KubeVirt and CDI.
const FILE_SYSTEM_PERCENT: u64 = 6;
/// Images are made in whole such pieces.
const PIECE: u64 = 1 << 20;

/// The volumes of a guest in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodVolumes {
    /// Folder of everything but devices.
    pub root: PathBuf,
    /// Folder of block devices.
    pub devices: PathBuf,
    /// Bytes of claims, by the guest's volume: a claim with a file system and no image gets one that fits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacities: BTreeMap<String, u64>,
}

impl Default for PodVolumes {
    fn default() -> Self {
        Self { root: ROOT.into(), devices: DEVICES.into(), capacities: BTreeMap::new() }
    }
}

/// What a pod's container has at a place.
#[derive(Clone, Debug, PartialEq)]
pub struct PodMount<'a> {
    /// Name of the pod's volume: made here, so that it is short and no other's.
    pub name: String,
    /// What it is.
    pub source: PodSource<'a>,
    /// Where it is mounted.
    pub path: PathBuf,
    /// Where it is instead, if it is a claim with `volumeMode: Block`.
    pub device: Option<PathBuf>,
    /// Whether it is only read.
    pub read_only: bool,
}

/// What a pod's volume is.
#[derive(Clone, Debug, PartialEq)]
pub enum PodSource<'a> {
    /// A folder of the node, with a guest's disk in it.
    HostFolder {
        /// The folder.
        path: &'a Path,
        /// Whether it is made where there is none.
        make: bool,
    },
    /// A persistent volume claim.
    Claim {
        /// Its name.
        name: &'a str,
    },
    /// A container image, all of it.
    Image {
        /// The image.
        reference: &'a str,
        /// When it is pulled.
        pull_policy: Option<&'a str>,
        /// Secret with the credentials of its registry: one of the pod's.
        pull_secret: Option<&'a str>,
    },
    /// A secret, a file for each key.
    Secret {
        /// Its name.
        name: &'a str,
        /// Whether it may be missing.
        optional: bool,
    },
    /// A config map, a file for each key.
    ConfigMap {
        /// Its name.
        name: &'a str,
        /// Whether it may be missing.
        optional: bool,
    },
    /// Fields of the pod.
    DownwardApi {
        /// Its files.
        fields: &'a [DownwardApiFile],
    },
    /// A folder that goes with the pod.
    Empty,
}

impl PodVolumes {
    /// With everything, devices too, below a folder.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), devices: root.join("devices"), capacities: BTreeMap::new() }
    }

    /// Folder of a volume: a claim's file system, a host disk's folder, the files of a secret or config map.
    #[must_use]
    pub fn folder(&self, volume: &str) -> PathBuf {
        self.root.join("volumes").join(volume)
    }

    /// Device of a claim with `volumeMode: Block`; there is a folder otherwise.
    #[must_use]
    pub fn device(&self, volume: &str) -> PathBuf {
        self.devices.join(volume)
    }

    /// Folder of the image of a container disk.
    #[must_use]
    pub fn image(&self, volume: &str) -> PathBuf {
        self.root.join("images").join(volume)
    }

    /// Folder of the secret with a volume's network data for cloud-init; its user data is in [`Self::folder`].
    #[must_use]
    pub fn network_data(&self, volume: &str) -> PathBuf {
        self.root.join("network-data").join(volume)
    }

    /// Folder of the image that holds the kernel, where the spec names one.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.root.join("kernel")
    }

    /// Folder, in memory, of what the launcher makes: sockets, and disks of a few files.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("guest")
    }

    /// Folder of what the guest writes and does not keep.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Name of the image in the folder of a claim.
    #[must_use]
    pub fn claim_image() -> &'static OsStr {
        OsStr::new(CLAIM_IMAGE)
    }

    /// Bytes of the image that is made on a claim which has none: what is left of it beside its file system.
    #[must_use]
    pub fn image_bytes(&self, volume: &str) -> Option<u64> {
        let capacity = *self.capacities.get(volume)?;
        let usable = capacity - capacity.div_ceil(100).saturating_mul(FILE_SYSTEM_PERCENT).min(capacity);
        Some(usable - usable % PIECE).filter(|bytes| *bytes > 0)
    }

    /// What the pod's container needs for a guest, in the order of the spec.
    #[must_use]
    pub fn mounts<'a>(&self, spec: &'a InstanceSpec) -> Vec<PodMount<'a>> {
        let mut mounts = Vec::new();
        for (index, volume) in spec.volumes.iter().enumerate() {
            let disk = spec.domain.devices.disks.iter().find(|disk| disk.name == volume.name);
            let read_only = disk.is_some_and(|disk| is_only_read(disk, volume));
            let path = match volume.container_disk {
                Some(_) => self.image(&volume.name),
                None => self.folder(&volume.name),
            };
            if let Some((source, read_only)) = source(volume, read_only) {
                let device = matches!(source, PodSource::Claim { .. }).then(|| self.device(&volume.name));
                mounts.push(PodMount { name: format!("volume-{index}"), source, path, device, read_only });
            }
            let network = volume.cloud_init().and_then(|data| data.network_data_secret_ref.as_ref());
            if let Some(name) = network.and_then(|secret| secret.name.as_deref()) {
                let source = PodSource::Secret { name, optional: false };
                let (name, path) = (format!("network-data-{index}"), self.network_data(&volume.name));
                mounts.push(PodMount { name, source, path, device: None, read_only: true });
            }
        }
        mounts.extend(self.kernel_mount(spec));
        if spec.volumes.iter().any(needs_scratch) {
            let (name, path) = ("scratch".to_owned(), self.scratch());
            mounts.push(PodMount { name, source: PodSource::Empty, path, device: None, read_only: false });
        }
        mounts
    }

    fn kernel_mount<'a>(&self, spec: &'a InstanceSpec) -> Option<PodMount<'a>> {
        let container = spec.domain.firmware.as_ref()?.kernel_boot.as_ref()?.container.as_ref()?;
        let source = PodSource::Image {
            reference: &container.image,
            pull_policy: container.image_pull_policy.as_deref(),
            pull_secret: container.image_pull_secret.as_deref(),
        };
        let (name, path) = ("kernel".to_owned(), self.kernel());
        Some(PodMount { name, source, path, device: None, read_only: true })
    }
}

/// Whether the guest can only read a disk.
#[must_use]
pub fn is_only_read(disk: &Disk, volume: &Volume) -> bool {
    let claim = volume.persistent_volume_claim.as_ref();
    disk.is_read_only() || claim.is_some_and(|claim| claim.read_only == Some(true))
}

/// What is mounted for a volume, and whether it is only read; nothing for what the launcher makes itself.
fn source(volume: &Volume, read_only: bool) -> Option<(PodSource<'_>, bool)> {
    if let Some(host) = &volume.host_disk {
        let path = Path::new(&host.path).parent()?;
        return Some((
            PodSource::HostFolder { path, make: host.kind == HostDiskType::DiskOrCreate },
            read_only,
        ));
    }
    if let Some(name) = volume.claim() {
        return Some((PodSource::Claim { name }, read_only));
    }
    if let Some(ephemeral) = &volume.ephemeral {
        let name = &ephemeral.persistent_volume_claim.as_ref()?.claim_name;
        return Some((PodSource::Claim { name }, true));
    }
    if let Some(disk) = &volume.container_disk {
        let source = PodSource::Image {
            reference: &disk.image,
            pull_policy: disk.image_pull_policy.as_deref(),
            pull_secret: disk.image_pull_secret.as_deref(),
        };
        return Some((source, true));
    }
    Some((object(volume)?, true))
}

fn object(volume: &Volume) -> Option<PodSource<'_>> {
    if let Some(secret) = &volume.secret {
        let optional = secret.optional == Some(true);
        return Some(PodSource::Secret { name: secret.secret_name.as_deref()?, optional });
    }
    if let Some(map) = &volume.config_map {
        let optional = map.optional == Some(true);
        return Some(PodSource::ConfigMap { name: map.name.as_deref()?, optional });
    }
    if let Some(fields) = &volume.downward_api {
        return Some(PodSource::DownwardApi { fields: &fields.fields });
    }
    let user = volume.cloud_init()?.secret_ref.as_ref()?;
    Some(PodSource::Secret { name: user.name.as_deref()?, optional: false })
}

/// Whether what a guest writes to a volume goes with it.
const fn needs_scratch(volume: &Volume) -> bool {
    volume.empty_disk.is_some() || volume.container_disk.is_some() || volume.ephemeral.is_some()
}
