#!/bin/sh
# The lab host's init: what a distribution would have done by the time somebody logs in.
export PATH=/bin:/usr/bin:/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /dev/hugepages /root /var/lib /usr/bin
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t hugetlbfs hugetlbfs /dev/hugepages
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
[ -e /sbin ] || ln -s bin /sbin
hostname lab
ip link set lo up
modprobe -a virtio_pci virtio_console virtio_blk
modprobe kvm-amd nested=1
modprobe -a tun bridge vfio-pci vfio_iommu_type1 vhost_net nvme
while read -r node kib count; do
    echo "$count" > "/sys/devices/system/node/node$node/hugepages/hugepages-${kib}kB/nr_hugepages"
done < /etc/huge-pages
mkdir -p /dev/net
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
port=
while [ -z "$port" ]; do
    for p in /sys/class/virtio-ports/*; do
        [ "$(cat "$p/name" 2>/dev/null)" = agent ] && port=/dev/${p##*/}
    done
done
if [ -d /root-files ]; then
    modprobe -a ext4 virtio_net
    mkdir /disk && mount -t ext4 /dev/vda /disk || poweroff -f
    cp -a /root-files/. /disk/
    for folder in dev proc sys run tmp; do
        mkdir -p "/disk/$folder" && mount -o move "/$folder" "/disk/$folder"
    done
    cp /bin/pinion-lab-agent /bin/busybox /disk/run/
    printf '%s\n' '#!/run/busybox sh' "/run/pinion-lab-agent $port" '/run/busybox poweroff -f' > /disk/run/lab
    chmod 755 /disk/run/lab
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    exec switch_root /disk /run/lab
fi
/bin/pinion-lab-agent "$port"
poweroff -f
