#!/usr/bin/env bash
# Builds and tests everything: formatting, lints, unit tests, then the suites that need a real cluster, once on
# each store.
#
#   hack/test.sh            all of it (the cluster suites need root)
#   hack/test.sh unit       no cluster, no root
#   hack/test.sh cluster    the cluster suites alone
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
[[ $what =~ ^(all|unit|cluster)$ ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
export PINTLE_CLUSTER=${PINTLE_TEST_CLUSTER:-test}

# shellcheck source=/dev/null
. hack/lib/base.sh && . hack/lib/packages.sh

step() { printf '\n\033[1m### %s (%d s)\033[0m\n' "$*" "$SECONDS"; }

unit() {
  step "formatting"
  cargo fmt --all --check
  step "lints"
  cargo clippy --workspace --all-targets --features tests/cluster --locked --quiet -- -D warnings
  if command -v cargo-deny > /dev/null; then
    step "licenses and sources"
    cargo deny --locked check bans licenses sources
  fi
  step "unit tests"
  # With etcd at hand the store contract runs on it too.
  if command -v etcd > /dev/null; then export PINTLE_TEST_ETCD=1; fi
  cargo test --workspace --locked --quiet
}

suites() {
  local store=$1 failed=
  step "a cluster of two nodes on the $store store"
  hack/local-up.sh down > /dev/null
  hack/local-up.sh --nodes 2 --store "$store"
  step "what an operator does ($store)"
  cargo test -p tests --features cluster --locked --test cluster -- --test-threads 4 || failed=1
  step "what goes wrong ($store)"
  cargo test -p tests --features cluster --locked --test disruption -- --test-threads 1 || failed=1
  if [ -n "$failed" ]; then
    step "the cluster's last words"
    kubectl --kubeconfig "/var/lib/pintle/$PINTLE_CLUSTER/admin.conf" get pods,nodes -A -o wide || true
    tail -n 20 "/var/lib/pintle/$PINTLE_CLUSTER"/node*/logs/*.log || true
    return 1
  fi
}

leftovers() {
  ! { ip netns list | grep "pintle-$PINTLE_CLUSTER"; find /sys/fs/cgroup -maxdepth 2 -name "pintle-$PINTLE_CLUSTER*" | grep .; \
    grep "/pintle/$PINTLE_CLUSTER" /proc/mounts; pgrep -fa "/pintle/$PINTLE_CLUSTER/"; }
}

cluster() {
  [ "$(id -u)" = 0 ] || { echo "the cluster suites need root; 'hack/test.sh unit' does not" >&2; exit 1; }
  packages_for_tests
  trap 'hack/local-up.sh down' EXIT
  suites embedded
  suites etcd
  step "taking it down"
  hack/local-up.sh down
  leftovers || { echo "left behind by 'local-up.sh down': see above" >&2; exit 1; }
}

# The build needs a compiler and protoc; as root they are installed, else their absence shows in the build.
[ "$(id -u)" != 0 ] || packages_install etcd
[ "$what" = cluster ] || unit
[ "$what" = unit ] || cluster
step "everything passed"
