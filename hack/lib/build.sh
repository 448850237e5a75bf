# Binaries and images. Sourced, not run.

build_binaries() {
  local from=$1 name source target
  target=${CARGO_TARGET_DIR:-target}
  say "building $PROFILE binaries"
  RUSTFLAGS=$(static_flags) cargo build --profile "$PROFILE" --locked --quiet --target $TARGET \
    -p apiserver -p scheduler -p controller-manager -p kubelet -p kube-proxy -p hack \
    || die "the build failed"
  [ "$PROFILE" != dev ] || target=$target/$TARGET/debug
  [ "$PROFILE" = dev ] || target=$target/$TARGET/$PROFILE
  mkdir -p "$STATE/bin" "$STATE/images"
  chmod 711 "$STATE"
  for name in $DAEMONS pintle-hack pause; do
    source=$target/$name
    [ -z "$from" ] || [ ! -x "$from/$name" ] || source=$from/$name
    [ "$source" != "$from/$name" ] || note "$name comes from $from"
    if ! cmp -s "$source" "$STATE/bin/$name"; then
      cp "$source" "$STATE/bin/.$name.new"
      mv "$STATE/bin/.$name.new" "$STATE/bin/$name"
    fi
  done
}

image_ref() { echo "localhost/pintle/$1:$IMAGE_TAG"; }

# pack NAME NEWEST-INPUT ARGUMENT...: makes images/NAME.tar unless it is newer than its input.
pack() {
  local name=$1 input=$2 out=$STATE/images/$1.tar
  shift 2
  [ "$out" -nt "$input" ] && [ "$out" -nt "$STATE/bin/pintle-hack" ] && return 0
  "$STATE/bin/pintle-hack" image --ref "$(image_ref "$name")" --out "$out" "$@"
}

build_images() {
  local store=$1 name busybox bin=$STATE/bin
  say "packing images"
  for name in kube-apiserver kube-scheduler kube-controller-manager; do
    pack $name "$bin/$name" --file "$bin/$name:/usr/local/bin/$name" --dir /tmp --entrypoint "$name"
  done
  pack pause "$bin/pause" --file "$bin/pause:/pause" --entrypoint /pause
  busybox=$(command -v busybox)
  local links=()
  for name in $("$busybox" --list | grep -vx busybox); do links+=(--link "/bin/$name:busybox"); done
  pack demo hack/lib/demo/index.html --file "$busybox:/bin/busybox" "${links[@]}" --dir /tmp --dir /etc --dir /var/run \
    --file hack/lib/demo/index.html:/www/index.html --file hack/lib/demo/serve:/bin/serve --entrypoint /bin/serve
  [ "$store" != etcd ] || pack_etcd
}

# The distribution's etcd with the libraries it names.
pack_etcd() {
  local etcd files=() lib
  etcd=$(command -v etcd)
  while read -r lib; do files+=(--file "$(readlink -f "$lib"):$lib"); done \
    < <(ldd "$etcd" | grep -o '/[^ ]*')
  pack etcd "$etcd" --file "$etcd:/usr/local/bin/etcd" "${files[@]}" --dir /tmp --entrypoint etcd
}
