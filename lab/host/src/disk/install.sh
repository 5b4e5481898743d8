# Installs GRUB for BIOS and for EFI on /dev/vda, from inside the system on it.
set -e
modprobe -a vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 2> /dev/null || true
mkdir -p /mnt
mount /dev/vda3 /mnt
mount /dev/vda2 /mnt/boot/efi
for f in dev proc sys run; do mount --bind /$f /mnt/$f; done
# Without udev: so that the root file system is named by its UUID, as on any other host.
mkdir -p /dev/disk/by-uuid
ln -sf /dev/vda3 /dev/disk/by-uuid/$(chroot /mnt blkid -s UUID -o value /dev/vda3)
chroot /mnt sh -e -c '
    grub-install --target=i386-pc /dev/vda
    grub-install --target=x86_64-efi --efi-directory=/boot/efi --removable --no-nvram
    update-grub'
for f in run sys proc dev boot/efi; do umount /mnt/$f; done
umount /mnt
sync
