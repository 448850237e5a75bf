# The network: one bridge in a namespace of its own, one namespace per node. Sourced, not run.

netns_exists() { [ -e "/run/netns/$1" ]; }

fabric_up() {
  local nodes=$1 i
  say "network: $nodes node(s) on $NODE_NET.0/24"
  if ! netns_exists "$PREFIX-fabric"; then
    ip netns add "$PREFIX-fabric"
  fi
  local f="ip -n $PREFIX-fabric"
  $f link set lo up
  $f link show br0 > /dev/null 2>&1 || $f link add br0 type bridge
  $f link set br0 up
  $f addr replace "$NODE_NET.254/24" dev br0
  ip netns exec "$PREFIX-fabric" sysctl -qw net.ipv4.ip_forward=0
  for i in $(seq 1 "$nodes"); do fabric_node "$i"; done
}

fabric_node() {
  local i=$1 ns=$PREFIX-node$1
  netns_exists "$ns" || ip netns add "$ns"
  if ! ip -n "$ns" link show eth0 > /dev/null 2>&1; then
    ip -n "$PREFIX-fabric" link del "node$i" 2> /dev/null || true
    ip link add eth0 netns "$ns" type veth peer name "node$i" netns "$PREFIX-fabric"
  fi
  ip -n "$PREFIX-fabric" link set "node$i" master br0 up
  ip -n "$ns" link set lo up
  ip -n "$ns" link set eth0 up
  ip -n "$ns" addr replace "$(node_ip "$i")/24" dev eth0
  # A dead end: it only makes service addresses routable, so that they reach the rules that rewrite them.
  ip -n "$ns" route replace default via "$NODE_NET.254"
  nsenter --net="/run/netns/$ns" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  nsenter --net="/run/netns/$ns" sysctl -qw net.bridge.bridge-nf-call-iptables=1 2> /dev/null || true
}

fabric_down() {
  local file
  for file in /run/netns/"$PREFIX"-*; do
    [ -e "$file" ] || continue
    ip netns del "${file##*/}"
  done
}
