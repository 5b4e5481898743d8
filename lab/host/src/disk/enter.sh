# Makes a lab host that has this root on its first disk a host with libvirt, its own files and programs included.
mkdir -p /host && mount -t ext4 /dev/vda /host || exit 1
cp /usr/bin/pinion* /host/usr/bin/
mkdir -p /host/usr/lib/modules && mount -o bind /lib/modules /host/usr/lib/modules || exit 1
for d in var var/lib; do
    for f in /host/$d/*/; do
        f=${f#/host}
        case $f in /var/lib/ | /var/lib/pinion/) continue ;; esac
        mkdir -p $f && mount -o bind /host$f $f || exit 1
    done
done
mkdir -p /etc /lib64 && mount -o bind /host/etc /etc && mount -o rbind /host/usr/lib /lib && mount -o bind /host/usr/lib64 /lib64 &&
    mount -o rbind /host/usr /usr || exit 1
for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$c > /sys/fs/cgroup/cgroup.subtree_control; done
/usr/sbin/virtlogd -d && /usr/sbin/libvirtd -d || exit 1
for i in $(seq 100); do virsh -q list > /dev/null 2>&1 && exit 0; sleep 0.2; done
virsh list
exit 1
