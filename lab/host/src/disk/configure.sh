#!/bin/sh
# Sets up a Debian system in the folder $1, whose second kernel has the release $2.
set -e
cd "$1"
echo debian > etc/hostname
printf 'LABEL=root / ext4 errors=remount-ro 0 1\nLABEL=ESP /boot/efi vfat umask=0077 0 2\n' > etc/fstab
mkdir -p boot/efi etc/default/grub.d var/lib/upgrade
# As cloud images have it: the last console is the serial one.
printf 'GRUB_DEFAULT=0\nGRUB_DISTRIBUTOR=Debian\nGRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"\nGRUB_TERMINAL=console\nGRUB_DISABLE_OS_PROBER=true\n' \
    > etc/default/grub
# What an emulated guest in an emulated host would wait for, and nobody looks at.
printf 'datasource_list: [NoCloud, None]\n' > etc/cloud/cloud.cfg.d/90_datasource.cfg
cat > etc/cloud/cloud.cfg.d/95_few.cfg <<EOF
cloud_init_modules: [seed_random, bootcmd, write_files, set_hostname]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts_user, final_message]
network: {config: disabled}
EOF
ln -sf /dev/null etc/systemd/system/apt-daily.timer
ln -sf /dev/null etc/systemd/system/apt-daily-upgrade.timer
ln -sf /dev/null etc/systemd/system/e2scrub_reap.service
ln -sf /dev/null etc/systemd/system/systemd-networkd-wait-online.service
ln -sf /dev/null etc/systemd/system/networking.service
# Those of the installer, and what `update-grub` has after an upgrade.
for f in vmlinuz initrd.img System.map config; do
    mv "boot/$f-$2" var/lib/upgrade/
done
rm -rf var/cache/apt/* var/lib/apt/lists/*
chroot . passwd -d root > /dev/null
