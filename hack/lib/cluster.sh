# The cluster's files, waiting for it, showing it, taking it down. Sourced, not run.

# fill FILE NAME=VALUE...: a template from deploy/ with its {{NAME}} filled in.
fill() {
  local text pair
  text=$(cat "$1")
  shift
  for pair in "$@"; do text=${text//"{{${pair%%=*}}}"/${pair#*=}}; done
  printf '%s\n' "$text"
}

# put FILE: standard input into a file, only when it differs, by rename; says by its status whether it differed.
put() {
  local new
  new=$(dirname "$1")/.$(basename "$1").new
  mkdir -p "$(dirname "$1")"
  cat > "$new"
  if cmp -s "$new" "$1"; then
    rm "$new"
    return 1
  fi
  mv "$new" "$1"
}

# What tells one build of a program from another.
build_id() { sha256sum "$1" | cut -c 1-12; }

# A loopback port for the host, kept for the cluster's life.
cluster_port() {
  local port
  if [ -s "$STATE/port" ]; then
    cat "$STATE/port"
    return
  fi
  for port in 6443 $(seq 16443 16543); do
    (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null && continue
    echo "$port" | tee "$STATE/port"
    return
  done
  die "no free loopback port between 16443 and 16543"
}

cluster_token() {
  if [ ! -s "$STATE/token" ]; then
    (umask 077; printf '%s.%s\n' "$(od -An -N3 -tx1 /dev/urandom | tr -d ' \n')" \
      "$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')" > "$STATE/token")
  fi
  cat "$STATE/token"
}

cluster_files() {
  local nodes=$1 store=$2 i dir server port
  if [ -s "$STATE/store" ] && [ "$(cat "$STATE/store")" != "$store" ]; then
    die "this cluster keeps its objects in the $(cat "$STATE/store") store; take it down before changing that"
  fi
  echo "$store" > "$STATE/store"
  port=$(cluster_port)
  server=https://$(node_ip 1):6443
  say "certificates and configuration"
  "$STATE/bin/pintle-hack" pki --dir "$(node_dir 1)/mnt/etc/kubernetes" --node node1 --server "$server" \
    --admin-server "https://127.0.0.1:$port" --san "$(node_ip 1)" --san "${SERVICE_CIDR%.0/16}.1" \
    --token "$(cluster_token)"
  (umask 077; cp "$(node_dir 1)/mnt/etc/kubernetes/admin.conf" "$KUBECONFIG_OUT")
  for i in $(seq 1 "$nodes"); do node_files "$i"; done
  dir=$(node_dir 1)/mnt/etc/kubernetes/manifests
  local flags name
  if [ "$store" = etcd ]; then
    flags=$(sed 's/^/    - /' deploy/manifests/etcd-flags.txt)
    fill deploy/manifests/etcd.yaml IMAGE="$(image_ref etcd)" NAME=node1 IP="$(node_ip 1)" | put "$dir/etcd.yaml" || true
  else
    flags='    - --embedded-store-path=/var/lib/kube-apiserver/store.redb'
  fi
  for name in kube-apiserver kube-controller-manager kube-scheduler; do
    # With the build in an annotation the kubelet starts the pod again when the program has changed.
    fill deploy/manifests/$name.yaml IMAGE="$(image_ref $name)" IP="$(node_ip 1)" POD_CIDR="$POD_CIDR" \
      SERVICE_CIDR="$SERVICE_CIDR" STORE_FLAGS="$flags" \
      | sed "s/^  labels:/  annotations: { build: $(build_id "$STATE/bin/$name") }\n&/" | put "$dir/$name.yaml" || true
  done
  forwarder_up "$port"
}

node_files() {
  local i=$1 dir etc
  dir=$(node_dir "$i") etc=$(node_dir "$i")/mnt/etc
  mkdir -p "$dir/services" "$etc/kubernetes/pki" "$etc/kubernetes/manifests" "$etc/cni/net.d"
  if [ "$i" != 1 ]; then
    local first
    first=$(node_dir 1)/mnt/etc/kubernetes
    cp -n "$first/pki/ca.crt" "$etc/kubernetes/pki/" 2> /dev/null || true
    (umask 077; cp "$first/bootstrap-kubelet.conf" "$first/kube-proxy.conf" "$etc/kubernetes/")
  fi
  # The file itself is bound into the node, so it is written in place.
  echo "nameserver $DNS_IP" > "$dir/resolv.conf"
  fill hack/lib/containerd.toml PAUSE="$(image_ref pause)" | put "$etc/containerd/config.toml" || true
  put "$etc/containerd/cni.conflist" < hack/lib/cni.conflist || true
  fill deploy/kubelet-config.yaml DNS_IP="$DNS_IP" CGROUP_DRIVER=cgroupfs | put "$dir/mnt/var/lib/kubelet/config.yaml" || true
  fill deploy/kube-proxy-config.yaml POD_CIDR="$POD_CIDR" | put "$dir/mnt/var/lib/kube-proxy/config.yaml" || true
  service "$i" containerd "$(command -v containerd)"
  service "$i" kubelet "$STATE/bin/kubelet" --config=/var/lib/kubelet/config.yaml --kubeconfig=/etc/kubernetes/kubelet.conf \
    --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --hostname-override="node$i" --node-ip="$(node_ip "$i")"
  service "$i" kube-proxy "$STATE/bin/kube-proxy" --config="$dir/mnt/var/lib/kube-proxy/config.yaml" --hostname-override="node$i" \
    --cluster-dns-bind="$DNS_IP" --pod-routes=host-gw
}

# service NODE NAME COMMAND...: an executable file that the node's init keeps running; a changed one is ended,
# and starts again by itself.
service() {
  local file changed=
  file=$(node_dir "$1")/services/$2
  { echo '#!/bin/sh'; echo "# build $(build_id "$3")"; echo "exec ${*:3}"; } | put "$file" && changed=1
  chmod 755 "$file"
  if [ -n "$changed" ] && node_pid "$1" > /dev/null; then
    note "restarting $2 on node$1"
    in_node "$1" pkill -x "$2" || true
  fi
}

forwarder_pids() { pgrep -f -- "pintle-hack forward .*--netns /run/netns/$PREFIX-node1 " || true; }

forwarder_up() {
  [ -z "$(forwarder_pids)" ] || return 0
  setsid "$STATE/bin/pintle-hack" forward --listen "127.0.0.1:$1" --netns "/run/netns/$PREFIX-node1" \
    --to "$(node_ip 1):6443" < /dev/null > "$STATE/forward.log" 2>&1 9>&- &
}

k() { kubectl --kubeconfig "$KUBECONFIG_OUT" --request-timeout=20s "$@"; }

lease_held() { k -n kube-system get lease "$1" -o 'jsonpath={.spec.holderIdentity}' | grep -q .; }

nodes_ready() {
  local ready
  ready=$(k get nodes -o 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' | grep -cx True)
  [ "$ready" -ge "$1" ]
}

cluster_wait() {
  local nodes=$1
  say "waiting for the control plane (static pods on node1)"
  wait_for "kube-apiserver" 120 k get --raw /readyz || die "kube-apiserver is not ready: $(node_dir 1)/logs/kubelet.log and $(node_dir 1)/mnt/var/log/pods tell why"
  fill deploy/bootstrap/token.yaml TOKEN_ID="$(cluster_token | cut -d. -f1)" TOKEN_SECRET="$(cluster_token | cut -d. -f2)" \
    | k apply -f - > /dev/null || die "cannot write the bootstrap token"
  k apply -f deploy/bootstrap/rbac.yaml > /dev/null || die "cannot write the bootstrap rules"
  wait_for "kube-controller-manager" 60 lease_held kube-controller-manager || die "kube-controller-manager does not lead: see $(node_dir 1)/mnt/var/log/pods"
  wait_for "kube-scheduler" 60 lease_held kube-scheduler || die "kube-scheduler does not lead: see $(node_dir 1)/mnt/var/log/pods"
  wait_for "$nodes node(s) Ready" 120 nodes_ready "$nodes" || die "not all nodes are Ready: kubectl get nodes, $(node_dir 1)/logs/kubelet.log"
  k label node node1 node-role.kubernetes.io/control-plane= --overwrite > /dev/null
}

cluster_demo() {
  local url=http://demo.default.svc.cluster.local/
  say "a Deployment of 3 behind a Service"
  wait_for "the default service account" 30 k -n default get serviceaccount default || die "no service account in namespace default"
  fill hack/lib/demo/demo.yaml IMAGE="$(image_ref demo)" | k apply -f - | sed 's/^/    /'
  wait_for "3 of 3 pods" 120 demo_ready || { k get pods -o wide; die "the demo's pods do not become ready"; }
  k get pods -l app=demo -o wide | sed 's/^/    /'
  wait_for "$url" 60 k exec deploy/demo -- wget -qO- "$url" || die "the Service does not answer"
  say "$url, asked from inside a pod, says:"
  k exec deploy/demo -- wget -qO- "$url" | sed 's/^/    /'
}

demo_ready() { [ "$(k get deployment demo -o 'jsonpath={.status.readyReplicas}')" = 3 ]; }

# Whoever works for an `up`: its subshells hold its lock, and outlive it when it alone is killed.
up_pids() { find /proc/[0-9]*/fd -lname "$LOCK" 2> /dev/null | cut -d/ -f3 | sort -u || true; }

cluster_down() {
  local pid
  for pid in $(up_pids); do
    say "ending process $pid of an unfinished 'up'"
    kill -9 "$pid" 2> /dev/null || true
  done
  for pid in $(forwarder_pids); do kill "$pid" 2> /dev/null || true; done
  nodes_down
  fabric_down
  rm -rf --one-file-system "$STATE"
  rmdir /var/lib/pintle 2> /dev/null || true
  rm -f "$LOCK"
  say "nothing of cluster '$CLUSTER' is left"
}
