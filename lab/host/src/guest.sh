#!/bin/sh
# Init of a guest inside the lab: loads what a cloud image would have loaded, runs the script, ends.
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
for module in $(cat /lib/modules/order); do
    insmod "/lib/modules/$module.ko" || echo "guest: module $module does not load"
done
ip link set lo up
echo "GUEST-READY $(cut -d' ' -f1 /proc/uptime)"
. /script.sh
echo "GUEST-END"
poweroff -f
