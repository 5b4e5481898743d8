# Builds the programs of a cluster: $1 has the Go modules `kubernetes` and `containerd`, $2 takes the programs.
set -eu
modules=$1
to=$2
toolchain=go1.26.8

# Go from 1.21 on fetches the toolchain that a module asks for; an older one, as Debian has, is told where to find it.
fetch() {
    cd "$to"
    GOFLAGS=-mod=mod GONOSUMDB=golang.org/toolchain go mod download "golang.org/toolchain@v0.0.1-$toolchain.linux-amd64"
    go=$(go env GOMODCACHE)/golang.org/toolchain@v0.0.1-$toolchain.linux-amd64/bin/go
    tools=${go%/bin/go}
    [ -x "$go" ] || { chmod -R u+w "$tools" && chmod -R +x "$tools/bin" "$tools/pkg/tool"; }
}

minor=$(go version | sed -n 's/^go version go1\.\([0-9]*\).*/\1/p')
if [ "${minor:-0}" -ge 26 ]; then
    go=go
elif [ "${minor:-0}" -ge 21 ]; then
    go=go
    export GOTOOLCHAIN=auto
else
    fetch
fi
export CGO_ENABLED=0 GOFLAGS="-trimpath -mod=readonly -buildvcs=false"

cd "$modules/kubernetes"
version=$("$go" list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
info=k8s.io/component-base/version
"$go" build -o "$to/" -ldflags \
    "-s -w -X $info.gitVersion=$version -X $info.gitMajor=1 -X $info.gitMinor=${minor%%.*}" tool
cd "$modules/containerd"
"$go" build -o "$to/" -tags no_btrfs,no_zfs,no_devmapper -ldflags "-s -w" tool
# Go names a program by its folder.
[ ! -e "$to/server" ] || mv "$to/server" "$to/etcd"
