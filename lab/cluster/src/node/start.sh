#!/bin/sh
# Makes a lab host that has booted from this disk a node of its cluster. Each program's log is below /var/log.
set -e
. /etc/kubernetes/node.env
hostname "$NODE"
echo "127.0.0.1 localhost
$ADDRESS $NODE" > /etc/hosts
od -An -N16 -tx1 /dev/urandom | tr -d ' ' > /etc/machine-id
mount --make-rshared /
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done
modprobe -a overlay bridge br_netfilter veth nf_tables nf_conntrack vfio-pci
# The last two the kubelet insists on.
sysctl -q net.ipv4.ip_forward=1 vm.overcommit_memory=1 kernel.panic=10 kernel.panic_on_oops=1

# Outside by the first card; other nodes by a bridge over the others.
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
ip link add nodes type bridge
for card in /sys/class/net/eth[1-9]*; do
    [ -e "$card" ] || continue
    ip link set "${card##*/}" master nodes up
done
ip address add "$ADDRESS/24" dev nodes
ip link set nodes up
for route in $ROUTES; do
    ip route add "${route%%:*}" via "${route#*:}"
done
# What pods send outside, to the API server too, comes from the node: nobody there knows the pods' addresses.
nft -f - <<EOF
table ip lab {
    chain out {
        type nat hook postrouting priority srcnat
        oifname eth0 ip saddr 10.244.0.0/16 masquerade
    }
}
EOF
cat > /etc/cni/net.d/10-lab.conflist <<EOF
{"cniVersion": "1.0.0", "name": "lab", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$PODS.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF

setsid containerd > /var/log/containerd.log 2>&1 < /dev/null &
until [ -S /run/containerd/containerd.sock ] && ctr version > /dev/null 2>&1; do sleep 0.2; done
# All at once: each is mostly sums, made by one CPU.
imports=
for image in /var/lib/pinion/images/*.tar; do
    ctr -n k8s.io images import --platform linux/amd64 "$image" >> /var/log/images.log 2>&1 &
    imports="$imports $!"
done
for import in $imports; do wait "$import"; done
tinyproxy -c /etc/tinyproxy.conf
start-kubelet
setsid kube-proxy --config=/etc/kubernetes/kube-proxy.json --hostname-override="$NODE" \
    > /var/log/kube-proxy.log 2>&1 < /dev/null &
