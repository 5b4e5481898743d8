//! `dataVolumeTemplates[]`: data volumes of CDI, spelled out inside a `VirtualMachine`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Quantity;
use crate::scheduling::LabelSelector;
use crate::schema::Status::Part;

object! {
    "A data volume to make."
    DataVolumeTemplate {
        api_version "apiVersion": Option<String>, Part, "API version.";
        kind "kind": Option<String>, Part, "Kind.";
        metadata "metadata": Option<Value>, Part, "Metadata.";
        spec "spec": DataVolumeSpec, Part, "What it holds.";
        status "status": Option<Value>, Part, "What became of it.";
    }

    "What a data volume holds."
    DataVolumeSpec {
        checkpoints "checkpoints": Vec<DataVolumeCheckpoint>, Part, "Stages of a multi-stage import.";
        content_type "contentType": Option<String>, Part, "`kubevirt` or `archive`.";
        final_checkpoint "finalCheckpoint": Option<bool>, Part, "Whether the last stage is reached.";
        preallocation "preallocation": Option<bool>, Part, "Whether its space is taken at once.";
        priority_class_name "priorityClassName": Option<String>, Part, "Priority of the importer.";
        pvc "pvc": Option<ClaimSpec>, Part, "The claim to make.";
        source "source": Option<DataVolumeSource>, Part, "Where its content is.";
        source_ref "sourceRef": Option<DataVolumeSourceRef>, Part, "The object that says where its content is.";
        storage "storage": Option<StorageSpec>, Part, "The storage to ask for.";
    }

    "A stage of a multi-stage import."
    DataVolumeCheckpoint {
        current "current": String, Part, "This snapshot.";
        previous "previous": String, Part, "The snapshot before.";
    }

    "A persistent volume claim to make."
    ClaimSpec {
        access_modes "accessModes": Vec<String>, Part, "How it may be used.";
        data_source "dataSource": Option<TypedReference>, Part, "What to fill it from.";
        data_source_ref "dataSourceRef": Option<NamespacedReference>, Part, "What to fill it from, in any namespace.";
        resources "resources": Option<VolumeResources>, Part, "How large.";
        selector "selector": Option<LabelSelector>, Part, "Which volumes will do.";
        storage_class_name "storageClassName": Option<String>, Part, "Storage class.";
        volume_attributes_class_name "volumeAttributesClassName": Option<String>, Part, "Attributes class.";
        volume_mode "volumeMode": Option<String>, Part, "`Block` or `Filesystem`.";
        volume_name "volumeName": Option<String>, Part, "The volume to bind.";
    }

    "Storage to ask for."
    StorageSpec {
        access_modes "accessModes": Vec<String>, Part, "How it may be used.";
        data_source "dataSource": Option<TypedReference>, Part, "What to fill it from.";
        data_source_ref "dataSourceRef": Option<NamespacedReference>, Part, "What to fill it from, in any namespace.";
        resources "resources": Option<VolumeResources>, Part, "How large.";
        selector "selector": Option<LabelSelector>, Part, "Which volumes will do.";
        storage_class_name "storageClassName": Option<String>, Part, "Storage class.";
        volume_mode "volumeMode": Option<String>, Part, "`Block` or `Filesystem`.";
        volume_name "volumeName": Option<String>, Part, "The volume to bind.";
    }

    "A reference to an object of the same namespace."
    TypedReference {
        api_group "apiGroup": Option<String>, Part, "Its API group.";
        kind "kind": String, Part, "Its kind.";
        name "name": String, Part, "Its name.";
    }

    "A reference to an object of any namespace."
    NamespacedReference {
        api_group "apiGroup": Option<String>, Part, "Its API group.";
        kind "kind": String, Part, "Its kind.";
        name "name": String, Part, "Its name.";
        namespace "namespace": Option<String>, Part, "Its namespace.";
    }

    "How large a volume is."
    VolumeResources {
        limits "limits": BTreeMap<String, Quantity>, Part, "At most.";
        requests "requests": BTreeMap<String, Quantity>, Part, "At least.";
    }

    "Where the content of a data volume is."
    DataVolumeSource {
        blank "blank": Option<EmptySource>, Part, "Nowhere: it starts empty.";
        gcs "gcs": Option<BucketSource>, Part, "Google Cloud Storage.";
        http "http": Option<HttpSource>, Part, "An HTTP server.";
        imageio "imageio": Option<ImageIoSource>, Part, "oVirt image I/O.";
        pvc "pvc": Option<ObjectSource>, Part, "Another claim.";
        registry "registry": Option<RegistrySource>, Part, "An image registry.";
        s3 "s3": Option<S3Source>, Part, "An S3 bucket.";
        snapshot "snapshot": Option<ObjectSource>, Part, "A volume snapshot.";
        upload "upload": Option<EmptySource>, Part, "It is uploaded.";
        vddk "vddk": Option<VddkSource>, Part, "VMware.";
    }

    "A source without settings."
    EmptySource {}

    "A Google Cloud Storage bucket."
    BucketSource {
        secret_ref "secretRef": Option<String>, Part, "Credentials.";
        url "url": String, Part, "Address.";
    }

    "An S3 bucket."
    S3Source {
        cert_config_map "certConfigMap": Option<String>, Part, "Certificates.";
        secret_ref "secretRef": Option<String>, Part, "Credentials.";
        url "url": String, Part, "Address.";
    }

    "An HTTP server."
    HttpSource {
        cert_config_map "certConfigMap": Option<String>, Part, "Certificates.";
        extra_headers "extraHeaders": Vec<String>, Part, "Headers to send.";
        secret_extra_headers "secretExtraHeaders": Vec<String>, Part, "Secrets that hold headers to send.";
        secret_ref "secretRef": Option<String>, Part, "Credentials.";
        url "url": String, Part, "Address.";
    }

    "oVirt image I/O."
    ImageIoSource {
        cert_config_map "certConfigMap": Option<String>, Part, "Certificates.";
        disk_id "diskId": String, Part, "The disk.";
        insecure_skip_verify "insecureSkipVerify": Option<bool>, Part, "Whether to trust any certificate.";
        secret_ref "secretRef": Option<String>, Part, "Credentials.";
        url "url": String, Part, "Address.";
    }

    "An object of the cluster to copy."
    ObjectSource {
        name "name": String, Part, "Its name.";
        namespace "namespace": String, Part, "Its namespace.";
    }

    "An image registry."
    RegistrySource {
        cert_config_map "certConfigMap": Option<String>, Part, "Certificates.";
        image_stream "imageStream": Option<String>, Part, "Image stream.";
        platform "platform": Option<RegistryPlatform>, Part, "Which of a multi-platform image.";
        pull_method "pullMethod": Option<String>, Part, "`pod` or `node`.";
        secret_ref "secretRef": Option<String>, Part, "Credentials.";
        url "url": Option<String>, Part, "Address.";
    }

    "Which of a multi-platform image."
    RegistryPlatform {
        architecture "architecture": Option<String>, Part, "Architecture.";
    }

    "A disk of VMware."
    VddkSource {
        backing_file "backingFile": Option<String>, Part, "The file.";
        extra_args "extraArgs": Option<String>, Part, "Arguments of the plug-in.";
        init_image_url "initImageURL": Option<String>, Part, "Image with the library.";
        secret_ref "secretRef": Option<String>, Part, "Credentials.";
        thumbprint "thumbprint": Option<String>, Part, "Certificate of the host.";
        url "url": Option<String>, Part, "Address.";
        uuid "uuid": Option<String>, Part, "The machine.";
    }

    "The object that says where the content of a data volume is."
    DataVolumeSourceRef {
        kind "kind": String, Part, "Its kind.";
        name "name": String, Part, "Its name.";
        namespace "namespace": Option<String>, Part, "Its namespace.";
    }
}
