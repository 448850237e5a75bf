#!/usr/bin/env bash
# A real cluster on this machine, for development and for a first look.
#
#   hack/local-up.sh [--nodes N] [--store embedded|etcd] [--binaries DIR] [--no-demo]
#   hack/local-up.sh down
#   hack/local-up.sh exec NODE COMMAND ...     runs a command inside a node (node1, node2, ...)
#
#   --nodes N        how many nodes (1 to 9; default 1); the first one carries the control plane
#   --store S        embedded (default) or etcd, which then runs as a static pod too
#   --binaries DIR   take any of kube-apiserver, kube-scheduler, kube-controller-manager, kubelet and
#                    kube-proxy that lie in DIR from there instead of from this tree
#   --no-demo        stop when the cluster is ready, without the demo Deployment and Service
#
# Every node has namespaces of its own (network, mounts, processes, cgroups, host name) and its own containerd;
# a bridge in one more network namespace joins them. Nothing of the machine's own network is used or changed:
# the cluster cannot reach out of it, and the only way in is one forwarded port on the host's loopback.
# A second `up` continues or confirms the first. State lies in /var/lib/pintle/NAME; PINTLE_CLUSTER sets NAME.
set -euo pipefail
cd "$(dirname "$0")/.."
for part in base packages build fabric node cluster; do
  # shellcheck source=/dev/null
  . "hack/lib/$part.sh"
done

usage() { sed -n '2,19s/^# \{0,1\}//p' "$0"; }

verb=up nodes=1 store=embedded binaries='' demo=1
case ${1:-} in
  up) shift ;;
  down | exec) verb=$1; shift ;;
  -h | --help) usage; exit 0 ;;
esac
if [ "$verb" = up ]; then
  while [ $# -gt 0 ]; do
    case $1 in
      --nodes=* | --store=* | --binaries=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
      --nodes) nodes=${2:?--nodes needs a number}; shift 2 ;;
      --store) store=${2:?--store needs embedded or etcd}; shift 2 ;;
      --binaries) binaries=$(cd "${2:?--binaries needs a folder}" && pwd); shift 2 ;;
      --no-demo) demo=; shift ;;
      *) usage >&2; die "unknown argument '$1'" ;;
    esac
  done
  [[ $nodes =~ ^[1-9]$ ]] || die "--nodes must be 1 to 9, not '$nodes'"
  [[ $store =~ ^(embedded|etcd)$ ]] || die "--store must be embedded or etcd, not '$store'"
fi
[ "$(id -u)" = 0 ] || die "namespaces and cgroups need root: run it with sudo"

case $verb in
  exec) node_exec "$@" ;;
  down) cluster_down ;;
  up)
    started=$SECONDS
    packages_install "$store"
    build_binaries "$binaries"
    ready=$SECONDS
    exec 9> "$LOCK"
    flock -n 9 || die "another local-up.sh works on this cluster; wait for it or end it"
    build_images "$store"
    fabric_up "$nodes"
    # Nodes that run get new images before the manifests that want them.
    for i in $(seq 1 "$nodes"); do ! node_pid "$i" > /dev/null || node_images "$i"; done
    cluster_files "$nodes" "$store"
    for i in $(seq 1 "$nodes"); do node_up "$i"; done
    cluster_wait "$nodes" "$store"
    [ -z "$demo" ] || cluster_demo
    say "the cluster is up: $((SECONDS - ready)) s after the build, $((SECONDS - started)) s in all"
    echo
    echo "    export KUBECONFIG=$KUBECONFIG_OUT"
    echo "    kubectl get pods -A"
    echo
    ;;
esac
