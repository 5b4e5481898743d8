//! The images that the node has: Pinion's, and those that guests boot from.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use pinion_lab::{Cache, Kernel, Programs, guest_initrd};
use pinion_oci::Image;

/// What the manifests name, and what comes after it: the same with another tag.
pub(crate) const VERSIONS: [&str; 2] = [env!("CARGO_PKG_VERSION"), "next"];

/// Where the node has the image of QEMU's launcher, to be imported later.
pub(crate) const LATER: &str = "/var/lib/pinion/later.tar";

/// Gets its address, and serves a page that is written anew each second, until the power button.
const SERVES: &str = r#"
cat > /tmp/bound <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "ADDRESS $ip"
END
chmod +x /tmp/bound
ip link set eth0 up
udhcpc -i eth0 -q -n -t 20 -s /tmp/bound
mkdir /www
boot=$(cat /proc/sys/kernel/random/boot_id)
page() {
    echo "HELLO boot=$boot up=$(cut -d. -f1 /proc/uptime) $1" > /www/new
    mv /www/new /www/index.html
}
modprobe -a button evdev 2> /dev/null
(head -c 1 /dev/input/event0 > /dev/null; poweroff -f) &
"#;

/// Says what it has; of a disk, if there is one, also whether it can be written.
const OWN: &str = r#"
modprobe -a vfat nls_cp437 nls_ascii
mkdir /disk
disk=none
if mount -t vfat /dev/vda /disk 2> /dev/null; then
    cp /disk/told /disk/again && umount /disk && mount -o ro -t vfat /dev/vda /disk
    disk=$(cat /disk/again)
fi
has="disk=$disk cpus=$(grep -c ^processor /proc/cpuinfo) core=$(cat /sys/devices/system/cpu/cpu0/topology/thread_siblings_list) \
functions=$(cat /sys/bus/pci/devices/*/device | grep -c 0x11e8) sata=$(cat /sys/bus/pci/devices/*/class | grep -c 0x010601) tpm=$(ls /sys/bus/acpi/devices | grep -c MSFT0101)"
page "$has"
httpd -p 80 -h /www
echo SERVING
while true; do sleep 1; page "$has"; done
"#;

/// Says what is on its disk, and what cloud-init's disk tells.
const OF_DISK: &str = r#"
modprobe -a vfat nls_cp437 nls_ascii
mkdir /disk /seed
mount -o ro -t vfat /dev/vda /disk
mount -o ro -t vfat /dev/vdb /seed
has="disk=$(cat /disk/told) seed=$(cat /seed/user-data)"
page "$has"
httpd -p 80 -h /www
echo SERVING
while true; do sleep 1; page "$has"; done
"#;

/// For speed alone, as for the lab's own kernel.
const ARGUMENTS: &str = "quiet console=ttyS0 tsc=reliable no_timer_check rcupdate.rcu_expedited=1 mitigations=off cryptomgr.notests";

/// OCI archives, by the places that nodes import them from.
pub(crate) fn images(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let programs = Programs::built().unwrap();
    let kernel = Kernel::of_debian(&Cache::of_user()).unwrap();
    let initrd = folder.join("initrd");
    guest_initrd(&format!("{SERVES}{OWN}"), &initrd).unwrap();
    let disk = disk(folder, &kernel.image());
    let mut images = vec![
        (
            "guest".to_owned(),
            Image::new("pinion.dev/lab/guest:1")
                .with_file("/boot/vmlinuz", kernel.image())
                .with_file("/boot/initrd", initrd),
        ),
        ("disk".to_owned(), Image::new("pinion.dev/lab/disk:1").with_file("/disk/disk.img", disk)),
    ];
    for (image, program) in [
        ("pinion", "pinion"),
        ("controller", "pinion-controller"),
        ("launcher", "pinion-launcher"),
        ("launcher-libvirt", "pinion-launcher-libvirt"),
    ] {
        let (name, place) = (format!("pinion.dev/{image}:{}", VERSIONS[0]), format!("/usr/bin/{program}"));
        let mut made = Image::of_program(&name, &place, &programs.path(program)).unwrap();
        if image == "launcher" {
            made = made.with_file("/usr/bin/pinion-image", programs.path("pinion-image"));
        }
        if image == "launcher-libvirt" {
            made = made.with_qemu().unwrap();
        }
        images.push((image.to_owned(), made));
    }
    // A large one is imported while the others are used already.
    let place = |name: &str| {
        let place = if name == "launcher-libvirt" {
            LATER.to_owned()
        } else {
            format!("/var/lib/pinion/images/{name}.tar")
        };
        PathBuf::from(place)
    };
    let write = |(name, image): (String, Image)| {
        let archive = folder.join(format!("{name}.tar"));
        image.write(&archive).unwrap();
        (place(&name), archive)
    };
    images.into_iter().map(write).collect()
}

/// A disk that boots as `CirrOS`' does, from a boot loader's file, and is as small.
fn disk(folder: &Path, kernel: &Path) -> PathBuf {
    let initrd = folder.join("initrd-of-disk");
    guest_initrd(&format!("{SERVES}{OF_DISK}"), &initrd).unwrap();
    let entry = format!("title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions {ARGUMENTS}\n");
    let files = [
        ("loader.conf", entry.into_bytes()),
        ("vmlinuz", fs::read(kernel).unwrap()),
        ("initrd.img", fs::read(initrd).unwrap()),
        ("told", b"own".to_vec()),
    ];
    let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
    let mut image = Cursor::new(vec![0; bytes.next_multiple_of(1 << 20) + (8 << 20)]);
    fatfs::format_volume(&mut image, fatfs::FormatVolumeOptions::new()).unwrap();
    let system = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
    let entries = system.root_dir().create_dir("loader").unwrap().create_dir("entries").unwrap();
    for (name, content) in files {
        let folder = if name == "loader.conf" { entries.clone() } else { system.root_dir() };
        folder.create_file(name).unwrap().write_all(&content).unwrap();
    }
    drop(entries);
    system.unmount().unwrap();
    let path = folder.join("disk.img");
    fs::write(&path, image.into_inner()).unwrap();
    path
}
