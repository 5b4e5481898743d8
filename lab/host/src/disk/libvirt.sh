#!/bin/sh
# Sets up libvirt in the folder $1 for a host without systemd, udev and dbus, where all is root's.
set -e
cd "$1"
cat > etc/libvirt/qemu.conf <<EOF
user = "root"
group = "root"
security_driver = "none"
namespaces = []
dynamic_ownership = 0
remember_owner = 0
EOF
echo 0123456789abcdef0123456789abcdef > etc/machine-id
rm -f etc/libvirt/qemu/networks/autostart/*
rm -rf var/cache/apt/* var/lib/apt/lists/*
