//! The image that cloud-init reads as NoCloud: a FAT file system labelled `CIDATA`, in memory.
//!
//! Source: cloud-init's documentation, datasource NoCloud. The image is a memory file: it is gone
//! with its descriptor.

use std::fs::File;
use std::io::{self, Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use nix::sys::memfd::{MFdFlags, memfd_create};
use pinion_api::{CloudInit, VirtualMachineInstance};

/// Room beside the data: FAT, directory, rounding of each file.
const ROOM: usize = 512 << 10;
const LABEL: [u8; 11] = *b"CIDATA     ";

/// The image for a guest, as a file in memory.
///
/// # Errors
/// From the operating system.
pub fn cloud_init_image(instance: &VirtualMachineInstance, data: &CloudInit) -> io::Result<File> {
    let seed = Seed {
        instance_id: instance.full_name(),
        host_name: instance.host_name().to_owned(),
        user_data: data.user_data_bytes(),
        network_data: Some(data.network_data_bytes()).filter(|d| !d.is_empty()),
    };
    seed.image()
}

/// What the image says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seed {
    pub(crate) instance_id: String,
    pub(crate) host_name: String,
    pub(crate) user_data: Vec<u8>,
    pub(crate) network_data: Option<Vec<u8>>,
}

impl Seed {
    /// The image.
    pub(crate) fn image(&self) -> io::Result<File> {
        let bytes = self.bytes()?;
        let mut file: File = memfd_create(c"pinion-cloud-init", MFdFlags::MFD_CLOEXEC)?.into();
        file.write_all(&bytes)?;
        Ok(file)
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        let data = self.user_data.len() + self.network_data.as_ref().map_or(0, Vec::len);
        let mut image = vec![0; (data + ROOM).next_multiple_of(4096)];
        fatfs::format_volume(
            Cursor::new(image.as_mut_slice()),
            FormatVolumeOptions::new().volume_label(LABEL),
        )?;
        {
            let volume = FileSystem::new(Cursor::new(image.as_mut_slice()), FsOptions::new())?;
            let root = volume.root_dir();
            root.create_file("meta-data")?.write_all(self.meta_data().as_bytes())?;
            root.create_file("user-data")?.write_all(&self.user_data)?;
            if let Some(network) = &self.network_data {
                root.create_file("network-config")?.write_all(network)?;
            }
        }
        Ok(image)
    }

    fn meta_data(&self) -> String {
        // JSON strings are YAML strings, whatever is in them.
        let text = |value: &str| serde_json::Value::from(value).to_string();
        format!("instance-id: {}\nlocal-hostname: {}\n", text(&self.instance_id), text(&self.host_name))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn seed(user_data: Vec<u8>) -> Seed {
        Seed {
            instance_id: "default/a".into(),
            host_name: "a".into(),
            user_data,
            network_data: Some(b"version: 2\n".to_vec()),
        }
    }

    fn read(image: &[u8], name: &str) -> Vec<u8> {
        let volume = FileSystem::new(Cursor::new(image.to_vec()), FsOptions::new()).unwrap();
        let mut content = Vec::new();
        volume.root_dir().open_file(name).unwrap().read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn the_image_holds_what_cloud_init_looks_for() {
        let image = seed(b"#cloud-config\n".to_vec()).bytes().unwrap();
        assert_eq!(read(&image, "user-data"), b"#cloud-config\n");
        assert_eq!(read(&image, "network-config"), b"version: 2\n");
        assert_eq!(read(&image, "meta-data"), b"instance-id: \"default/a\"\nlocal-hostname: \"a\"\n");
        let volume = FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), "CIDATA");
    }

    #[test]
    fn a_megabyte_of_user_data_fits() {
        let data = vec![b'x'; 1 << 20];
        assert_eq!(read(&seed(data.clone()).bytes().unwrap(), "user-data"), data);
    }
}
