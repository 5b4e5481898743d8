#!/bin/sh
# Sets up a Debian system in the folder $1, whose second kernel has the release $2.
set -e
cd "$1"
echo debian > etc/hostname
printf 'LABEL=root / ext4 errors=remount-ro 0 1\nLABEL=ESP /boot/efi vfat umask=0077 0 2\n' > etc/fstab
mkdir -p boot/efi etc/default/grub.d var/lib/upgrade
# As cloud images have it: quiet, and the last console is the serial one. The rest is for speed alone, as for the lab's own
# kernel; each line on the console of an emulated guest of an emulated host takes some 40 ms.
cat > etc/default/grub <<EOF
GRUB_DEFAULT=0
GRUB_DISTRIBUTOR=Debian
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 tsc=reliable no_timer_check rcupdate.rcu_expedited=1 mitigations=off \
nokaslr norandmaps nowatchdog audit=0 cryptomgr.notests"
GRUB_TERMINAL=console
GRUB_DISABLE_OS_PROBER=true
EOF
# Says which kernel is up: before its root is mounted, and at the login.
printf '#!/bin/sh\n[ "$1" = prereqs ] || echo "INIT $(uname -r)" > /dev/console\n' > etc/initramfs-tools/scripts/init-top/told
chmod +x etc/initramfs-tools/scripts/init-top/told
printf 'Debian GNU/Linux 12 \\r \\n \\l\n\n' > etc/issue
printf 'MODULES=list\n' > etc/initramfs-tools/conf.d/few
printf 'virtio_pci\nvirtio_blk\next4\n' >> etc/initramfs-tools/modules
chroot . update-initramfs -u -k all > /dev/null
# What an emulated guest in an emulated host would wait for, and nobody looks at.
printf 'policy: enabled\n' > etc/cloud/ds-identify.cfg
printf 'datasource_list: [NoCloud, None]\n' > etc/cloud/cloud.cfg.d/90_datasource.cfg
cat > etc/cloud/cloud.cfg.d/95_few.cfg <<EOF
cloud_init_modules: [seed_random, bootcmd, write_files, set_hostname]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts_user, final_message]
network: {config: disabled}
EOF
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    networking.service systemd-networkd-wait-online.service modprobe@.service dev-hugepages.mount dev-mqueue.mount \
    sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    proc-sys-fs-binfmt_misc.automount systemd-binfmt.service systemd-fsckd.socket systemd-journal-flush.service \
    systemd-sysusers.service systemd-update-utmp.service; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
printf 'blacklist kvm_amd\nblacklist kvm_intel\nblacklist aesni_intel\nblacklist ghash_clmulni_intel\n' > etc/modprobe.d/few.conf
# Those of the installer, and what `update-grub` has after an upgrade.
for f in vmlinuz initrd.img System.map config; do
    mv "boot/$f-$2" var/lib/upgrade/
done
rm -rf var/cache/apt/* var/lib/apt/lists/*
chroot . passwd -d root > /dev/null
