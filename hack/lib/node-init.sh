#!/usr/bin/env bash
# The first process inside a node's namespaces: makes its view of the machine, then becomes its init.
#   node-init.sh INDEX DIR BIN
set -euo pipefail
i=$1 dir=$2 bin=$3

mount --make-rprivate /
mount --make-rshared /
hostname "node$i"

if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  # The kernel refuses the same file system a second time in one place.
  umount -l /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  # Processes may live only in leaves: make room before controllers are handed down.
  mkdir -p /sys/fs/cgroup/init
  echo $$ > /sys/fs/cgroup/init/cgroup.procs
  # Who started this is moved from outside.
  for _ in $(seq 300); do
    [ -n "$(cat /sys/fs/cgroup/cgroup.procs)" ] || break
    sleep 0.1
  done
  for c in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$c" > /sys/fs/cgroup/cgroup.subtree_control 2> /dev/null || true
  done
else
  for c in cpu cpuacct cpuset memory devices freezer blkio pids; do
    [ -d /sys/fs/cgroup/$c ] || continue
    umount /sys/fs/cgroup/$c 2> /dev/null || true
    mount -t cgroup -o $c cgroup /sys/fs/cgroup/$c
  done
  umount /sys/fs/cgroup/systemd 2> /dev/null || true
  mkdir -p /sys/fs/cgroup/systemd 2> /dev/null && mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
  if [ -d /sys/fs/cgroup/unified ]; then
    umount /sys/fs/cgroup/unified 2> /dev/null || true
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
  fi
fi

# The node's own folders under the usual paths.
for path in /var/lib/containerd /var/lib/kubelet /var/lib/cni /var/lib/etcd /var/lib/kube-apiserver /var/log/pods \
  /var/log/containers /etc/cni/net.d /etc/containerd /etc/kubernetes /run; do
  inside=$dir/mnt$path
  [ "$path" != /run ] || inside=$dir/run
  mkdir -p "$inside" "$path"
  mount --bind "$inside" "$path"
  mount --make-shared "$path"
done
mkdir -p /run/netns /run/lock /opt/cni

# The machine's resolver is not the cluster's.
mount --bind "$dir/resolv.conf" "$(readlink -f /etc/resolv.conf)"
# A kubelet writes these, and they belong to the whole machine: the node gets copies.
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  [ -e /proc/sys/$name ] || continue
  mkdir -p "$dir/sysctl/$(dirname $name)"
  cat /proc/sys/$name > "$dir/sysctl/$name"
  mount --bind "$dir/sysctl/$name" /proc/sys/$name
done

exec "$bin/pintle-hack" init --services "$dir/services" --logs "$dir/logs"
