//! `volumes[]`: what disks hold.

use crate::Quantity;
use crate::schema::Status::{Cluster, Only, Part, Planned, Works};

/// Volumes of a cluster.
const CLUSTER_VOLUME: &str = "claims live in a cluster; use a hostDisk volume";
/// Objects of a cluster.
const CLUSTER_OBJECT: &str =
    "it lives in a cluster; put what the guest needs into cloudInitNoCloud or a hostDisk volume";
/// Registries.
const CLUSTER_IMAGE: &str = "on one host images are not pulled from a registry; use a hostDisk volume";
/// Secrets.
const SECRET: &str = "secrets live in a cluster; give the data here";
/// Hot-plug.
const HOTPLUG: &str = "volumes come and go with the guest; remove it";

object! {
    "A volume: what a disk holds. Exactly one kind."
    Volume {
        name "name": String, Works(""), "Its name, and that of its disk.";
        host_disk "hostDisk": Option<HostDisk>, Works("qcow2 where the path ends in `.qcow2`, else raw: never guessed from the content, which the guest can write."), "An image or block device of this host.";
        cloud_init_no_cloud "cloudInitNoCloud": Option<CloudInit>, Works("A generated read-only image."), "Data for cloud-init, as NoCloud.";
        cloud_init_config_drive "cloudInitConfigDrive": Option<CloudInit>, Works("A generated read-only image; network data is OpenStack's `network_data.json`."), "Data for cloud-init, as a config drive.";
        persistent_volume_claim "persistentVolumeClaim": Option<ClaimVolume>, Cluster(CLUSTER_VOLUME), "A persistent volume claim: its block device, or its raw image `disk.img`.";
        data_volume "dataVolume": Option<DataVolume>, Cluster(CLUSTER_VOLUME), "A data volume: the claim of its name, which must exist.";
        container_disk "containerDisk": Option<ContainerDisk>, Cluster(CLUSTER_IMAGE), "A disk inside a container image, raw or qcow2; what the guest writes goes with it.";
        ephemeral "ephemeral": Option<Ephemeral>, Cluster(CLUSTER_VOLUME), "A claim that is only read: what the guest writes goes with it.";
        empty_disk "emptyDisk": Option<EmptyDisk>, Works("A sparse raw file without a name; on one host in `$TMPDIR`, or in `/var/tmp`."), "An empty disk that goes with the guest.";
        sysprep "sysprep": Option<Sysprep>, Planned("Windows is not set up; remove it"), "Answers for Windows set-up.";
        config_map "configMap": Option<ConfigMapVolume>, Cluster(CLUSTER_OBJECT), "A config map as a read-only disk, as it is when the guest starts.";
        secret "secret": Option<SecretVolume>, Cluster(CLUSTER_OBJECT), "A secret as a read-only disk, as it is when the guest starts.";
        downward_api "downwardAPI": Option<DownwardApi>, Cluster(CLUSTER_OBJECT), "Fields of the pod as a read-only disk, as they are when the guest starts.";
        service_account "serviceAccount": Option<ServiceAccountVolume>, Planned("guests get no service account; put a token into a secret"), "A service account as a disk.";
        downward_metrics "downwardMetrics": Option<DownwardMetricsVolume>, Planned("the host's metrics are not passed on; remove it"), "Host metrics as a disk.";
        memory_dump "memoryDump": Option<ClaimVolume>, Planned("memory dumps are not done; remove it"), "Where memory is dumped to.";
        container_path "containerPath": Option<ContainerPath>, Planned("directories are not shared with the guest; use a disk"), "A directory of the pod.";
    }

    "An image or block device of this host."
    HostDisk {
        path "path": String, Works("Absolute, without `..`."), "Its path.";
        kind "type": HostDiskType, Works(""), "Whether it may be made.";
        capacity "capacity": Option<Quantity>, Works("Needed with `DiskOrCreate`; refused with `Disk`, whose size is its own."), "Its size when it is made.";
        shared "shared": Option<bool>, Works("About several nodes; nothing to do on one host."), "Whether its path is the same on every node.";
    }

    "Data for cloud-init."
    CloudInit {
        user_data "userData": Option<String>, Works("At most 1 MiB."), "User data.";
        user_data_base64 "userDataBase64": Option<String>, Works("At most 1 MiB."), "User data, in base64.";
        network_data "networkData": Option<String>, Works("At most 1 MiB."), "Network data.";
        network_data_base64 "networkDataBase64": Option<String>, Works("At most 1 MiB."), "Network data, in base64.";
        secret_ref "secretRef": Option<LocalReference>, Cluster(SECRET), "Secret with user data, in its key `userdata` or `userData`.";
        network_data_secret_ref "networkDataSecretRef": Option<LocalReference>, Cluster(SECRET), "Secret with network data, in its key `networkdata` or `networkData`.";
    }

    "An object of the same namespace."
    LocalReference {
        name "name": Option<String>, Part, "Its name.";
    }

    "A persistent volume claim."
    ClaimVolume {
        claim_name "claimName": String, Part, "Its name.";
        read_only "readOnly": Option<bool>, Part, "Whether it is only read: by the guest, too.";
        hotpluggable "hotpluggable": Option<bool>, Only(false, HOTPLUG), "Whether it can be unplugged.";
    }

    "A data volume."
    DataVolume {
        name "name": String, Part, "Its name, and that of its claim.";
        hotpluggable "hotpluggable": Option<bool>, Only(false, HOTPLUG), "Whether it can be unplugged.";
    }

    "A disk inside a container image."
    ContainerDisk {
        image "image": String, Part, "The image.";
        path "path": Option<String>, Part, "The disk inside it; the only file in `/disk` where absent.";
        image_pull_policy "imagePullPolicy": Option<String>, Part, "When it is pulled: `Always`, `IfNotPresent` or `Never`.";
        image_pull_secret "imagePullSecret": Option<String>, Part, "Credentials of the registry.";
    }

    "A claim, changes to which are thrown away."
    Ephemeral {
        persistent_volume_claim "persistentVolumeClaim": Option<EphemeralClaim>, Part, "The claim.";
    }

    "The claim under an ephemeral volume."
    EphemeralClaim {
        claim_name "claimName": String, Part, "Its name.";
        read_only "readOnly": Option<bool>, Part, "Whether it is only read.";
    }

    "An empty disk."
    EmptyDisk {
        capacity "capacity": Quantity, Works(""), "Its size.";
    }

    "Answers for Windows set-up."
    Sysprep {
        config_map "configMap": Option<LocalReference>, Part, "In a config map.";
        secret "secret": Option<LocalReference>, Part, "In a secret.";
    }

    "A config map as a disk."
    ConfigMapVolume {
        name "name": Option<String>, Part, "Its name.";
        optional "optional": Option<bool>, Part, "Whether it may be missing.";
        volume_label "volumeLabel": Option<String>, Part, "Label of the disk: `cfgdata` where absent, at most 11 characters.";
    }

    "A secret as a disk."
    SecretVolume {
        secret_name "secretName": Option<String>, Part, "Its name.";
        optional "optional": Option<bool>, Part, "Whether it may be missing.";
        volume_label "volumeLabel": Option<String>, Part, "Label of the disk: `cfgdata` where absent, at most 11 characters.";
    }

    "Fields of the pod as a disk."
    DownwardApi {
        fields "fields": Vec<DownwardApiFile>, Part, "Its files.";
        volume_label "volumeLabel": Option<String>, Part, "Label of the disk: `cfgdata` where absent, at most 11 characters.";
    }

    "A file with a field of the pod."
    DownwardApiFile {
        path "path": String, Part, "Name of the file.";
        field_ref "fieldRef": Option<ObjectFieldRef>, Part, "A field.";
        resource_field_ref "resourceFieldRef": Option<ResourceFieldRef>, Part, "A resource.";
        mode "mode": Option<i32>, Part, "Mode of the file.";
    }

    "A field of the pod."
    ObjectFieldRef {
        api_version "apiVersion": Option<String>, Part, "API version of the path.";
        field_path "fieldPath": String, Part, "Its path.";
    }

    "A resource of the pod."
    ResourceFieldRef {
        container_name "containerName": Option<String>, Part, "Of which container.";
        resource "resource": String, Part, "Which.";
        divisor "divisor": Option<Quantity>, Part, "In which unit.";
    }

    "A service account as a disk."
    ServiceAccountVolume {
        service_account_name "serviceAccountName": Option<String>, Part, "Its name.";
    }

    "Host metrics as a disk."
    DownwardMetricsVolume {}

    "A directory of the pod."
    ContainerPath {
        path "path": String, Part, "Its path.";
        read_only "readOnly": Option<bool>, Part, "Whether it is only read; yes where absent.";
    }

    "A volume for dumps and backups."
    UtilityVolume {
        name "name": String, Part, "Its name.";
        claim_name "claimName": String, Part, "The claim.";
        kind "type": Option<String>, Part, "`MemoryDump` or `Backup`.";
        read_only "readOnly": Option<bool>, Part, "Whether it is only read.";
    }
}

choice! {
    "Whether an image may be made."
    HostDiskType {
        Disk "Disk", Works(""), "It must exist.";
        DiskOrCreate "DiskOrCreate", Works("Made as a sparse raw image."), "It is made if it does not exist.";
    }
}

/// What is inside an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// The disk, byte for byte.
    Raw,
    /// qcow2.
    Qcow2,
}

impl HostDisk {
    /// What is inside, by the name. Never by the content: a guest can write a qcow2 header into
    /// its raw disk and so name any file of the host as what lies beneath.
    #[must_use]
    pub fn format(&self) -> ImageFormat {
        if std::path::Path::new(&self.path).extension().is_some_and(|extension| extension == "qcow2") {
            ImageFormat::Qcow2
        } else {
            ImageFormat::Raw
        }
    }
}

/// Label of a generated disk whose volume gives none.
const OBJECT_LABEL: &str = "cfgdata";

impl Volume {
    /// Whether a system may be on it, so that the guest can boot from it.
    #[must_use]
    pub const fn holds_image(&self) -> bool {
        self.host_disk.is_some()
            || self.container_disk.is_some()
            || self.persistent_volume_claim.is_some()
            || self.data_volume.is_some()
            || self.ephemeral.is_some()
    }

    /// Its data for cloud-init, of whichever kind.
    #[must_use]
    pub const fn cloud_init(&self) -> Option<&CloudInit> {
        match &self.cloud_init_no_cloud {
            Some(data) => Some(data),
            None => self.cloud_init_config_drive.as_ref(),
        }
    }

    /// The claim that the guest reads and may write; none of an ephemeral volume.
    #[must_use]
    pub fn claim(&self) -> Option<&str> {
        let claim = self.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.as_str());
        claim.or_else(|| self.data_volume.as_ref().map(|volume| volume.name.as_str()))
    }

    /// The claim that must be there for it, whatever the guest does with it.
    #[must_use]
    pub fn any_claim(&self) -> Option<&str> {
        let ephemeral = self.ephemeral.as_ref().and_then(|volume| volume.persistent_volume_claim.as_ref());
        self.claim().or_else(|| ephemeral.map(|claim| claim.claim_name.as_str()))
    }

    /// Label of the disk that is made of an object of the cluster.
    #[must_use]
    pub fn label(&self) -> &str {
        let labels = [
            self.config_map.as_ref().and_then(|volume| volume.volume_label.as_deref()),
            self.secret.as_ref().and_then(|volume| volume.volume_label.as_deref()),
            self.downward_api.as_ref().and_then(|volume| volume.volume_label.as_deref()),
        ];
        labels.into_iter().flatten().find(|label| !label.is_empty()).unwrap_or(OBJECT_LABEL)
    }
}
