#!/bin/sh
# Makes the Debian in the folder $1 a node: the programs in $2, the kernel's modules in $3, scripts and settings in $4.
set -e
cd "$1"
for program in kubelet kube-proxy containerd containerd-shim-runc-v2 ctr; do
    cp "$2/$program" usr/local/bin/
    chmod 755 "usr/local/bin/$program"
done
mkdir -p usr/lib/modules etc/containerd etc/kubernetes etc/cni/net.d var/lib/kubelet var/lib/pinion/images var/log
cp -a "$3" usr/lib/modules/
chroot . depmod "${3##*/}"
cp "$4/config.toml" etc/containerd/config.toml
for script in start-node start-kubelet; do
    cp "$4/$script" usr/local/sbin/
    chmod 755 "usr/local/sbin/$script"
done
cat > etc/tinyproxy.conf <<EOF
Port 8888
Listen 0.0.0.0
Timeout 600
MaxClients 100
EOF

cp "$4/busybox.tar" var/lib/pinion/images/
rm -rf var/cache/apt/* var/lib/apt/lists/*
