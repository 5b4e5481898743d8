//! The disk that cloud-init reads: as NoCloud labelled `CIDATA`, as a config drive `config-2`.
//!
//! Source: cloud-init's documentation, datasources NoCloud and ConfigDrive; KubeVirt for what is in which file.

use std::fs::File;
use std::io;

use pinion_api::{CloudInit, VirtualMachineInstance, Volume};
use serde_json::json;

use super::fat::Files;
use crate::identity::guest_uuid;

/// Labels.
const NO_CLOUD: &str = "CIDATA";
const CONFIG_DRIVE: &str = "config-2";
/// Folder of a config drive.
const LATEST: &str = "openstack/latest";

/// What cloud-init is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CloudInitData {
    /// What to do.
    pub(super) user_data: Vec<u8>,
    /// How networks are set up; empty for what cloud-init does itself.
    pub(super) network_data: Vec<u8>,
}

impl CloudInitData {
    /// What the spec itself says.
    pub(super) fn inline(data: &CloudInit) -> Self {
        Self { user_data: data.user_data_bytes(), network_data: data.network_data_bytes() }
    }
}

/// The disk for a guest, as a file in memory, of the kind that the volume is.
pub(super) fn cloud_init_image(
    instance: &VirtualMachineInstance,
    volume: &Volume,
    data: CloudInitData,
) -> io::Result<File> {
    if volume.cloud_init_config_drive.is_some() {
        config_drive(instance, data).image(CONFIG_DRIVE)
    } else {
        no_cloud(instance, data).image(NO_CLOUD)
    }
}

fn no_cloud(instance: &VirtualMachineInstance, data: CloudInitData) -> Files {
    // JSON strings are YAML strings, whatever is in them.
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let (id, host) = (text(&instance.full_name()), text(instance.host_name()));
    let mut files = Files::default();
    files.add("meta-data", format!("instance-id: {id}\nlocal-hostname: {host}\n").into_bytes());
    files.add("user-data", data.user_data);
    if !data.network_data.is_empty() {
        files.add("network-config", data.network_data);
    }
    files
}

fn config_drive(instance: &VirtualMachineInstance, data: CloudInitData) -> Files {
    let name = instance.host_name();
    // cloud-init takes the UUID for the instance, and does without none.
    let meta_data = json!({
        "uuid": guest_uuid(instance).to_string(),
        "instance_id": instance.full_name(),
        "name": instance.name(),
        "hostname": name,
        "local_hostname": name,
    });
    let mut files = Files::default();
    let mut add = |name: &str, content: Vec<u8>| files.add(&format!("{LATEST}/{name}"), content);
    add("meta_data.json", meta_data.to_string().into_bytes());
    for (name, content) in [("user_data", data.user_data), ("network_data.json", data.network_data)] {
        if !content.is_empty() {
            add(name, content);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::super::fat::read;
    use super::*;

    fn instance() -> VirtualMachineInstance {
        serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "a"}, "spec": {"domain": {"devices": {}}, "hostname": "host"}
        }))
        .unwrap()
    }

    fn data(user_data: &[u8], network_data: &[u8]) -> CloudInitData {
        CloudInitData { user_data: user_data.to_vec(), network_data: network_data.to_vec() }
    }

    #[test]
    fn no_cloud_has_what_cloud_init_looks_for() {
        let image = no_cloud(&instance(), data(b"#cloud-config\n", b"version: 2\n")).bytes(NO_CLOUD).unwrap();
        let (label, files) = read(&image);
        assert_eq!(label, "CIDATA");
        assert_eq!(files["user-data"], b"#cloud-config\n");
        assert_eq!(files["network-config"], b"version: 2\n");
        assert_eq!(files["meta-data"], b"instance-id: \"default/a\"\nlocal-hostname: \"host\"\n");
    }

    #[test]
    fn a_config_drive_has_what_cloud_init_looks_for() {
        let image =
            config_drive(&instance(), data(b"#!/bin/sh\n", b"{\"links\":[]}")).bytes(CONFIG_DRIVE).unwrap();
        let (label, files) = read(&image);
        assert_eq!(label, "config-2");
        assert_eq!(files["openstack/latest/user_data"], b"#!/bin/sh\n");
        assert_eq!(files["openstack/latest/network_data.json"], b"{\"links\":[]}");
        let meta: serde_json::Value =
            serde_json::from_slice(&files["openstack/latest/meta_data.json"]).unwrap();
        assert_eq!((&meta["hostname"], &meta["instance_id"]), (&"host".into(), &"default/a".into()));
        assert_eq!(meta["uuid"], guest_uuid(&instance()).to_string());
    }

    #[test]
    fn without_data_there_is_a_name_still() {
        let (_, files) = read(&no_cloud(&instance(), data(b"", b"")).bytes(NO_CLOUD).unwrap());
        assert_eq!(files.into_keys().collect::<Vec<_>>(), ["meta-data", "user-data"]);
        let (_, files) = read(&config_drive(&instance(), data(b"", b"")).bytes(CONFIG_DRIVE).unwrap());
        assert_eq!(files.into_keys().collect::<Vec<_>>(), ["openstack/latest/meta_data.json"]);
    }

    #[test]
    fn a_megabyte_of_each_fits() {
        let data = data(&vec![b'x'; 1 << 20], &vec![b'y'; 1 << 20]);
        for image in [
            no_cloud(&instance(), data.clone()).bytes(NO_CLOUD),
            config_drive(&instance(), data.clone()).bytes(CONFIG_DRIVE),
        ] {
            let (_, files) = read(&image.unwrap());
            assert!(
                files.values().any(|f| *f == data.user_data)
                    && files.values().any(|f| *f == data.network_data)
            );
        }
    }
}
