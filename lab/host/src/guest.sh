#!/bin/sh
# Init of a guest inside the lab: loads what a cloud image would have loaded, runs the script, ends.
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
modprobe -a virtio_pci virtio_blk virtio_net virtio-rng button evdev
ip link set lo up
echo "GUEST-READY $(cut -d' ' -f1 /proc/uptime)"
. /script.sh
echo "GUEST-END"
poweroff -f
