#!/bin/sh
# Runs inside the fresh base tree of the lab (systemd-nspawn, not booted): installs the packages of the
# nodes, makes the guests, and removes what would make two nodes look alike.
#
# usage: base-setup.sh PACKAGE...        files beside it: guest/
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
here=$(dirname "$0")

say() { echo "lab: $*"; }

# No daemon starts while packages are configured: there is no systemd here yet.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

say "reading package lists"
apt-get -q update
say "installing $# packages"
apt-get -qy -o Dpkg::Options::=--force-unsafe-io --no-install-recommends install "$@"
rm -f /usr/sbin/policy-rc.d

say "making the guests"
"$here/guest/build.sh" "$here/guest" /usr/share/pvc-lab/guest

say "setting up services"
# Units that only cost time in a node of the lab, or that would act on their own.
systemctl mask --quiet \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer logrotate.timer man-db.timer systemd-networkd.service systemd-networkd-wait-online.service \
    systemd-networkd.socket systemd-resolved.service systemd-timesyncd.service systemd-udevd.service \
    systemd-udev-trigger.service systemd-pstore.service nftables.service frr.service ceph-crash.service \
    nvmf-autoconnect.service nvmefc-boot-connections.service lvm2-monitor.service lvm2-lvmpolld.socket \
    dm-event.socket blk-availability.service rbdmap.service uuidd.socket \
    libvirt-guests.service ceph-volume@.service \
    getty@tty1.service console-getty.service getty.target ldconfig.service modprobe@.service 2>/dev/null || true
# Started by pvcnoded or by nobody: never by the distribution's own defaults.
systemctl disable --quiet dnsmasq.service ceph.target 2>/dev/null || true
systemctl disable --quiet libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket 2>/dev/null || true

# Each node gets an identity of its own when it is made.
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id /etc/hostname
ln -s /etc/machine-id /var/lib/dbus/machine-id
rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/*.log /usr/share/doc/* /usr/share/man/*
# The log of a node is kept over power cycles, so that one can see why it died.
mkdir -p /var/log/journal
say "base tree is ready"
