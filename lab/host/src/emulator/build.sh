# Builds QEMU from Debian's sources with the patches beside this script, in this folder; its argument is the version.
set -eu
version=$1
here=$PWD
PATH=/usr/bin:/bin

# An index of sources beside the machine's own: nothing of the system is changed.
mkdir -p apt/lists/partial apt/archives/partial
apt-get indextargets --format 'deb-src $(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
    sort -u > apt/sources.list
apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$here/apt/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$here/apt/lists" -o Dir::Cache="$here/apt" "$@"
}
apt update
mkdir source
cd source
apt source "qemu=$version"
cd qemu-*/
for patch in "$here"/*.patch; do
    patch --strip 1 --fuzz 0 < "$patch"
done

mkdir lab
cd lab
../configure --target-list=x86_64-softmmu --without-default-features --enable-tcg --enable-system --enable-fdt \
    --enable-slirp --disable-werror --disable-docs --meson=/usr/bin/meson --extra-cflags=-O3
ninja qemu-system-x86_64
strip -o "$here/qemu-system-x86_64" qemu-system-x86_64
cd "$here"
rm -rf apt source *.patch
