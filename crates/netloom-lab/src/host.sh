# Turns fresh net, mount, uts, ipc and pid namespaces into one machine of the lab and then waits.
# Runs as the first process of the pid namespace: when it ends, the kernel ends everything in it.
# Its standard input is a pipe from the lab: the machine lives as long as the lab holds that pipe.
set -eu
: "$NL_TREE" "$NL_WORK" "$NL_BIN" "$NL_NAME" "$NL_COMPOSE"

mount --make-rprivate /
root=$NL_WORK/root

# The tree is shared by all machines of that version and stays as it was made; changes go to `upper`,
# which survives a simulated reboot as a disk does.
mount -t overlay overlay -o "lowerdir=$NL_TREE,upperdir=$NL_WORK/upper,workdir=$NL_WORK/ovl" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir -p "$root/run/docker/plugins" "$root/var/lib/docker" "$root/opt/netloom" "$root/lab" "$root/run/lock"

# overlay on overlay is refused by the kernel: the container store lies on the disk itself.
mount --bind "$NL_WORK/docker" "$root/var/lib/docker"
mount --bind "$NL_BIN" "$root/opt/netloom"
mount --bind "$NL_WORK/lab" "$root/lab"
if [ -n "$NL_COMPOSE" ]; then
    mkdir -p "$root/usr/local/lib/docker/cli-plugins"
    : >"$root/usr/local/lib/docker/cli-plugins/docker-compose"
    mount --bind "$NL_COMPOSE" "$root/usr/local/lib/docker/cli-plugins/docker-compose"
fi

# A machine knows a reboot by this id; the kernel's own is the same for all namespaces.
mount --bind "$NL_WORK/boot_id" "$root/proc/sys/kernel/random/boot_id"

hostname "$NL_NAME"
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$NL_NAME" >"$root/etc/hosts"
printf 'nameserver 192.0.2.254\n' >"$root/etc/resolv.conf"
ip link set lo up

cd "$root"
pivot_root . mnt
busybox umount -l /mnt
cd /
echo ready >/lab/ready
# Not `exec`: this shell stays the first process and reaps what its machine orphans.
cat >/dev/null
exit 0
