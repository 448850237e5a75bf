# What the cluster needs from the distribution. Sourced, not run.

packages_install() {
  local store=$1 missing=()
  have() { command -v "$1" > /dev/null 2>&1; }
  want() { have "$1" || missing+=("$2"); }
  have cargo || die "Rust is missing: install rustup from your distribution or rustup.rs, then 'rustup default stable'"
  have kubectl || die "kubectl is missing: take the static binary of a Kubernetes release, or 'apt-get install kubernetes-client'"
  want containerd containerd
  want runc runc
  want nft nftables
  want conntrack conntrack
  want iptables iptables
  want ip iproute2
  want nsenter util-linux
  want pgrep procps
  want mount mount
  want cc build-essential
  want protoc protobuf-compiler
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
  { have busybox && busybox_static; } || missing+=(busybox-static)
  [ "$store" != etcd ] || want etcd etcd-server
  apt_install "${missing[@]}"
}

# What the cluster suites need beside the cluster.
packages_for_tests() {
  local missing=() name
  for name in curl skopeo docker-registry; do
    command -v $name > /dev/null 2>&1 || missing+=($name)
  done
  apt_install "${missing[@]}"
}

apt_install() {
  local missing=("$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get > /dev/null || die "missing: ${missing[*]}; this script installs them with apt on Debian 12 only"
  say "installing ${missing[*]}"
  local shim=
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    # The packages' own services must not start: every node runs its own containerd and etcd.
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    shim=1
  fi
  local failed=
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null; } || failed=1
  [ -z "$shim" ] || rm -f /usr/sbin/policy-rc.d
  [ -z "$failed" ] || die "apt could not install ${missing[*]}"
}

busybox_static() { ! ldd "$(command -v busybox)" > /dev/null 2>&1; }
