#!/usr/bin/env bash
# Measures kube-apiserver alone, over the embedded store and over etcd, beside what the machine gives without it:
# etcd's own puts, fsyncs, TLS. Prints one table per store.
#
#   hack/bench.sh                            both stores
#   hack/bench.sh embedded|etcd              one of them
#   hack/bench.sh etcd --binary PATH         another kube-apiserver, a stock one for instance
#   hack/bench.sh embedded -- --objects 500  whatever `pintle-bench --help` knows
#
# Needs no root. Everything runs on free ports of the loopback and in a folder of its own below
# ${PINTLE_BENCH_DIR:-/var/tmp}, which should be on a disk; both are gone afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=/dev/null
. hack/lib/base.sh

usage() { sed -n '2,12s/^# \{0,1\}//p' hack/bench.sh >&2; exit 2; }

stores=() binary=
while [ $# -gt 0 ]; do
  case $1 in
    embedded | etcd) stores+=("$1"); shift ;;
    --binary) [ $# -ge 2 ] || usage; binary=$2; shift 2 ;;
    --) shift; break ;;
    *) usage ;;
  esac
done
[ ${#stores[@]} -gt 0 ] || stores=(embedded etcd)

work=$(mktemp -d "${PINTLE_BENCH_DIR:-/var/tmp}/pintle-bench.XXXXXX")
etcd_pid=

finish() {
  if [ -n "$etcd_pid" ]; then
    kill "$etcd_pid" 2> /dev/null || true
    wait "$etcd_pid" 2> /dev/null || true
    etcd_pid=
  fi
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# free_port VARIABLE: a port of the loopback that nobody listens on.
free_port() {
  local candidate
  while candidate=$((20000 + RANDOM % 20000)); (exec 3<> "/dev/tcp/127.0.0.1/$candidate") 2> /dev/null; do :; done
  printf -v "$1" %s "$candidate"
}

build() {
  local target=${CARGO_TARGET_DIR:-target}
  bin=${PINTLE_BIN:-$target/$TARGET/release}
  if [ -z "${PINTLE_BIN:-}" ]; then
    say "building release binaries"
    RUSTFLAGS=$(static_flags) cargo build --release --locked --quiet \
      --target $TARGET -p apiserver -p hack
  fi
  : "${binary:=$bin/kube-apiserver}"
}

start_etcd() {
  local pki=$work/kubernetes/pki/etcd client peer
  command -v etcd > /dev/null || die "etcd is not installed (apt-get install etcd-server)"
  free_port client
  free_port peer
  etcd_url=https://127.0.0.1:$client
  etcd --name bench --data-dir "$work/etcd" --logger zap --log-level error \
    --listen-client-urls "$etcd_url" --advertise-client-urls "$etcd_url" \
    --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
    --initial-cluster "bench=http://127.0.0.1:$peer" --quota-backend-bytes 8589934592 \
    --client-cert-auth --trusted-ca-file "$pki/ca.crt" --cert-file "$pki/server.crt" --key-file "$pki/server.key" \
    2> "$work/etcd.log" &
  etcd_pid=$!
}

measure() {
  local store=$1 port pki=$work/kubernetes/pki storage=() limits=()
  shift
  free_port port
  "$bin/pintle-hack" pki --dir "$work/kubernetes" --node bench --server "https://127.0.0.1:$port" \
    --admin-server "https://127.0.0.1:$port" --token abcdef.0123456789abcdef
  if [ "$store" = etcd ]; then
    start_etcd
    local tls=(--etcd-cafile "$pki/etcd/ca.crt" --etcd-certfile "$pki/apiserver-etcd-client.crt"
      --etcd-keyfile "$pki/apiserver-etcd-client.key")
    storage=(--etcd-servers "$etcd_url" "${tls[@]}")
    limits=(--etcd "$etcd_url" "${tls[@]}")
  else
    storage=(--embedded-store-path "$work/store/store.redb")
    mkdir -p "$work/store"
    limits=(--fsync-dir "$work/store")
  fi
  "$bin/pintle-bench" --name "kube-apiserver, $store store" --kubeconfig "$work/kubernetes/super-admin.conf" \
    --server-log "$work/apiserver.log" "${limits[@]}" "$@" -- "$binary" \
    --bind-address 127.0.0.1 --secure-port "$port" --advertise-address 192.0.2.1 \
    --client-ca-file "$pki/ca.crt" --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-signing-key-file "$pki/sa.key" --service-account-key-file "$pki/sa.pub" \
    --service-cluster-ip-range 10.96.0.0/16 --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    "${storage[@]}" || { tail -n 20 "$work"/*.log >&2; exit 1; }
  rm -rf "$work/kubernetes" "$work/store"
}

build
say "measuring on $(nproc) cores: $(sed -n 's/^model name[^:]*: //p;' /proc/cpuinfo | head -n 1)"
for store in "${stores[@]}"; do
  say "the $store store"
  measure "$store" "$@"
done
