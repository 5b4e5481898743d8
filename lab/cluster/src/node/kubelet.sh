#!/bin/sh
# Starts the kubelet, again where it has ended.
. /etc/kubernetes/node.env
setsid kubelet --config=/etc/kubernetes/kubelet.json --kubeconfig=/etc/kubernetes/kubelet.kubeconfig \
    --hostname-override="$NODE" --node-ip="$ADDRESS" >> /var/log/kubelet.log 2>&1 < /dev/null &
