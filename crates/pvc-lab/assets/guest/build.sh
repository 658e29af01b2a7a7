#!/bin/sh
# Makes the guests of the lab: a tiny Linux from Debian's cloud kernel and busybox, and a guest in one boot sector.
#
# usage: build.sh SOURCE_DIR TARGET_DIR      makes TARGET_DIR/{vmlinuz,initrd,tiny.bin}
set -eu
source=$1
target=$2
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
mkdir -p "$target"

# The meta package names the current kernel; only the kernel package itself is unpacked, nothing is installed.
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
(cd "$build" && apt-get -q -o APT::Sandbox::User=root download "$kernel")
dpkg -x "$build"/linux-image-*.deb "$build/kernel"
version=$(basename "$build"/kernel/lib/modules/*)
cp "$build/kernel/boot/vmlinuz-$version" "$target/vmlinuz"

root="$build/root"
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/modules" "$root/etc/acpi/PWRF"
cp /bin/busybox "$root/bin/busybox"
depmod -b "$build/kernel" "$version"
# In the order of their dependencies; what is built into the kernel has no file.
for module in virtio_pci virtio_blk virtio_net virtio_balloon button evdev; do
    modprobe --dirname "$build/kernel" --set-version "$version" --show-depends "$module"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r file; do
    cp "$file" "$root/modules/"
    basename "$file" >>"$root/modules/order"
done
install -m 755 "$source/init" "$root/init"
install -m 755 "$source/power-button" "$root/etc/acpi/PWRF/00000080"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -9) >"$target/initrd"

nasm -f bin "$source/tiny.asm" -o "$target/tiny.bin"
truncate -s 16M "$target/tiny.bin"
chmod 644 "$target"/*
