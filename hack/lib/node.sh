# One node as a machine: namespaces, containerd, kubelet and kube-proxy under a small init. Sourced, not run.

CGROUP_V1="cpu cpuacct cpuset memory devices freezer blkio pids systemd unified"
CGROUPS=/sys/fs/cgroup

node_dir() { echo "$STATE/node$1"; }

# The pid, on the host, of the node's PID 1; fails when the node does not run.
node_pid() {
  local outer
  outer=$(cat "$(node_dir "$1")/pid" 2> /dev/null) || return 1
  pgrep -P "$outer" -f 'pintle-hack init' 2> /dev/null | head -n 1 | grep .
}

node_exec() {
  local name=${1:?exec needs a node, node1} pid
  shift
  [[ $name =~ ^node[1-9]$ ]] || die "'$name' is not a node; nodes are node1, node2, ..."
  pid=$(node_pid "${name#node}") || die "$name does not run"
  exec nsenter -t "$pid" --net --mount --uts --pid --cgroup -- "$@"
}

# As node_exec, for scripts.
in_node() { (node_exec "node$1" "${@:2}"); }

node_up() {
  local i=$1 dir
  dir=$(node_dir "$i")
  if node_pid "$i" > /dev/null; then
    note "node$i runs"
    kill -HUP "$(node_pid "$i")"
  else
    say "starting node$i ($(node_ip "$i"))"
    rm -rf --one-file-system "$dir/run"
    mkdir -p "$dir"/{run,logs,mnt}
    (
      node_cgroup "$i"
      exec 9>&-
      exec setsid nsenter --net="/run/netns/$PREFIX-node$i" \
        unshare --mount --uts --ipc --pid --fork --kill-child --cgroup --mount-proc \
        bash hack/lib/node-init.sh "$i" "$dir" "$STATE/bin" < /dev/null > "$dir/logs/init.log" 2>&1
    ) &
    echo $! > "$dir/pid"
    if [ -f $CGROUPS/cgroup.controllers ]; then
      wait_for "node$i's cgroup" 30 node_cgroup_leaf "$i" || die "node$i's cgroup stays without controllers: see $dir/logs/init.log"
    fi
  fi
  wait_for "node$i's containerd" 30 in_node "$i" ctr version || die "containerd does not answer: see $dir/logs"
  node_images "$i"
}

# Imports what the node does not have yet; the stamp says which archive was imported.
node_images() {
  local i=$1 archive dir stamp
  dir=$(node_dir "$i")
  for archive in "$STATE"/images/*.tar; do
    stamp=$dir/imported-$(basename "$archive" .tar)
    [ "$stamp" -nt "$archive" ] && continue
    # The control plane's images are for the first node only.
    [[ $i != 1 && $archive =~ /(kube-|etcd) ]] && continue
    in_node "$i" ctr -n k8s.io images import "$archive" > /dev/null || die "cannot import $archive on node$i"
    touch "$stamp"
  done
}

# Moves the calling shell into the node's own cgroups; children stay there.
node_cgroup() {
  local i=$1 name=$PREFIX-node$1 c dir
  if [ -f $CGROUPS/cgroup.controllers ]; then
    mkdir -p "$CGROUPS/$name"
    for c in $(cat $CGROUPS/cgroup.controllers); do
      echo "+$c" > $CGROUPS/cgroup.subtree_control 2> /dev/null || true
    done
    echo $BASHPID > "$CGROUPS/$name/cgroup.procs"
    return
  fi
  for c in $CGROUP_V1; do
    [ -d "$CGROUPS/$c" ] || continue
    dir=$CGROUPS/$c/$name
    mkdir -p "$dir"
    if [ "$c" = cpuset ]; then
      cat $CGROUPS/cpuset/cpuset.cpus > "$dir/cpuset.cpus"
      cat $CGROUPS/cpuset/cpuset.mems > "$dir/cpuset.mems"
    fi
    echo $BASHPID > "$dir/cgroup.procs"
  done
}

# On v2 a cgroup with processes of its own hands no controllers down. What waits for the node's init outside its
# process namespace is out of the init's reach, so it goes into the leaf from here. Fails while there is no leaf.
node_cgroup_leaf() {
  local dir=$CGROUPS/$PREFIX-node$1 pid
  [ -d "$dir/init" ] || return 1
  while read -r pid; do echo "$pid" > "$dir/init/cgroup.procs" 2> /dev/null || true; done < "$dir/cgroup.procs"
  [ -z "$(cat "$dir/cgroup.procs")" ]
}

# Ends everything that lives in one of the cluster's network namespaces, then its cgroups. Needs no pid file,
# so it also cleans up after an interrupted start.
nodes_down() {
  local file pid round left
  for round in $(seq 1 100); do
    left=
    for file in /run/netns/"$PREFIX"-node*; do
      [ -e "$file" ] || continue
      for pid in $(ip netns pids "${file##*/}"); do
        left=1
        kill -9 "$pid" 2> /dev/null || true
      done
    done
    [ -n "$left" ] || break
    sleep 0.05
  done
  [ -z "$left" ] || die "processes of the cluster do not end: $pid"
  for round in $(seq 1 50); do
    cgroups_remove && return
    sleep 0.1
  done
  die "cgroups named $PREFIX-node* cannot be removed"
}

cgroups_remove() {
  local dir left=0
  for dir in $CGROUPS/"$PREFIX"-node* $CGROUPS/*/"$PREFIX"-node*; do
    [ -d "$dir" ] || continue
    cgroup_kill "$dir"
    find "$dir" -depth -type d -exec rmdir {} \; 2> /dev/null
    [ ! -d "$dir" ] || left=1
  done
  return $left
}

# Processes that left their network namespace but not their cgroup.
cgroup_kill() {
  local procs pid
  while read -r procs; do
    while read -r pid; do kill -9 "$pid" 2> /dev/null || true; done < "$procs"
  done < <(find "$1" -name cgroup.procs 2> /dev/null)
}
