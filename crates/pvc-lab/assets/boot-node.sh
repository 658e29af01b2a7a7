# Boots one node. Run by `setsid --fork unshare --mount --propagation private sh`, so that neither the mount of its
# root nor its processes belong to whoever asked; both end with the node's cgroup.
#
# in the environment: NODE (name), CGROUP, LOWER (base tree), DIR (of this node), BINDS (further arguments)
set -eu
# A lock that the caller holds by an open file is not to be held by the node.
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
echo $$ >"$CGROUP/cgroup.procs"
mount -t overlay pvc-lab -o "lowerdir=$LOWER,upperdir=$DIR/upper,workdir=$DIR/work" "$DIR/root"
export SYSTEMD_NSPAWN_LOCK=0
# shellcheck disable=SC2086 # BINDS is a list
exec systemd-nspawn --quiet --settings=no --register=no --keep-unit --directory="$DIR/root" --machine="$NODE" \
    --hostname="$NODE" --private-network --capability=all --system-call-filter=@known --resolv-conf=off \
    --timezone=off --link-journal=no --console=read-only $BINDS --boot
