# Names, places and words that the other parts use. Sourced, not run.

CLUSTER=${PINTLE_CLUSTER:-local}
PREFIX=pintle-$CLUSTER                      # of network namespaces and cgroups
STATE=/var/lib/pintle/$CLUSTER              # everything the cluster keeps
RUN=/run/pintle-$CLUSTER                    # locks
KUBECONFIG_OUT=$STATE/admin.conf
LOCK=$RUN.lock
NODE_NET=10.77.0                            # of the nodes; the fabric is .254
POD_CIDR=10.244.0.0/16
SERVICE_CIDR=10.96.0.0/16
DNS_IP=10.96.0.10
TARGET=x86_64-unknown-linux-gnu
DAEMONS="kube-apiserver kube-scheduler kube-controller-manager kubelet kube-proxy"
IMAGE_TAG=local
PROFILE=${PINTLE_PROFILE:-release}           # cargo's: dev builds faster and runs slower

# Flags for rustc: static, so that the same file runs on the node and in an image made of nothing else. Its relocations
# are packed where the C library that is linked in can unpack them (glibc 2.36); they are a twentieth of a binary.
static_flags() {
  local flags="-C target-feature=+crt-static" glibc
  glibc=$(getconf GNU_LIBC_VERSION 2> /dev/null) || glibc="glibc 0"
  case $(printf '%s\n' 2.36 "${glibc#glibc }" | sort -V | head -n 1) in
    2.36) flags="$flags -C link-arg=-Wl,-z,pack-relative-relocs" ;;
  esac
  echo "$flags ${RUSTFLAGS:-}"
}

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() { printf 'local-up: %s\n' "$*" >&2; exit 1; }

# wait_for WHAT SECONDS COMMAND...: tries until the command succeeds; says what it waits for.
wait_for() {
  local what=$1 limit=$2 since=$SECONDS shown=0
  shift 2
  until "$@" > /dev/null 2>&1; do
    if [ $((SECONDS - since)) -ge "$limit" ]; then
      "$@" 2>&1 | tail -n 5 >&2 || true
      return 1
    fi
    if [ $((SECONDS - since)) -ge $((shown + 5)) ]; then
      shown=$((SECONDS - since))
      note "waiting for $what ($shown s)"
    fi
    sleep 0.1
  done
  note "$what: ready"
}

node_ip() { echo "$NODE_NET.$1"; }
