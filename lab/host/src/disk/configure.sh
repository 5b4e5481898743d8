#!/bin/sh
# Sets up a Debian system in the folder $1, whose second kernel has the release $2.
set -e
cd "$1"
echo debian > etc/hostname
printf 'LABEL=root / ext4 errors=remount-ro 0 1\nLABEL=ESP /boot/efi vfat umask=0077 0 2\n' > etc/fstab
mkdir -p boot/efi etc/default/grub.d var/lib/upgrade
# As cloud images have it: the last console is the serial one.
printf 'GRUB_DEFAULT=0\nGRUB_DISTRIBUTOR=Debian\nGRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT=quiet\nGRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"\nGRUB_TERMINAL=console\nGRUB_DISABLE_OS_PROBER=true\n' \
    > etc/default/grub
# What an emulated guest in an emulated host would wait for, and nobody looks at.
printf 'datasource_list: [NoCloud, None]\n' > etc/cloud/cloud.cfg.d/90_datasource.cfg
cat > etc/cloud/cloud.cfg.d/95_few.cfg <<EOF
cloud_init_modules: [seed_random, bootcmd, write_files, set_hostname]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts_user, final_message]
network: {config: disabled}
EOF
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
    e2scrub_reap.service systemd-networkd-wait-online.service networking.service systemd-timesyncd.service \
    systemd-pstore.service getty@tty1.service; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
# Drivers of virtual machines only: emulation unpacks an initrd slowly.
echo MODULES=list > etc/initramfs-tools/conf.d/modules
printf 'virtio_pci\nvirtio_blk\next4\nahci\nsd_mod\n' > etc/initramfs-tools/modules
cat > etc/initramfs-tools/scripts/init-top/lab <<'EOF'
#!/bin/sh
[ "$1" = prereqs ] || echo "INIT-RUNS" > /dev/console
EOF
chmod +x etc/initramfs-tools/scripts/init-top/lab
chroot . update-initramfs -u -k all > /dev/null
# Says which kernel runs, before anybody logs in.
printf 'Debian GNU/Linux 12, kernel \\r\n\n' > etc/issue
# Those of the installer, and what `update-grub` has after an upgrade.
for f in vmlinuz initrd.img System.map config; do
    mv "boot/$f-$2" var/lib/upgrade/
done
rm -rf var/cache/apt/* var/lib/apt/lists/*
chroot . passwd -d root > /dev/null
