#!/bin/bash
# Brings the factory of compose.yml up with Docker, on ports and with volumes of its own, gives it work by curl and by the
# nats CLI, stops an executor, gives it more, restarts the broker, and brings all of it down.
#
#   compose/test.sh [--stand-ins]
#
# Where an image cannot be pulled (or with --stand-ins) it is replaced by one made of this machine's files: stand-in.sh.
# Needs a running Docker with compose; python3 with pip and Rust for the stand-ins. DOCKER names another client.
set -euo pipefail
cd "$(dirname "$0")"

export DOCKER=${DOCKER:-docker}
export COMPOSE_PROJECT_NAME=wf-compose-test
export WF_IMAGE=work-factory:compose-test
# A port of the loopback interface on which nobody answers, so that the test disturbs no factory that runs here.
free_port() {
    local port
    until port=$((20000 + RANDOM % 10000)) && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}
WF_PORT=${WF_PORT:-$(free_port)} WF_NATS_PORT=${WF_NATS_PORT:-$(free_port)}
export WF_PORT WF_NATS_PORT
# Without BuildKit the Dockerfile's cache mounts do not work.
export DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1
http=http://127.0.0.1:$WF_PORT
patience=60

step() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

step "Docker"
"$DOCKER" version --format 'client {{.Client.Version}}, server {{.Server.Version}}' || fail "no Docker daemon answers"
if "$DOCKER" compose version >/dev/null 2>&1; then
    compose() { "$DOCKER" compose "$@"; }
elif command -v docker-compose >/dev/null; then
    compose() { docker-compose "$@"; }
else
    fail "neither 'docker compose' nor docker-compose is there"
fi
compose version --short

finish() {
    local code=$?
    # After a failure, what the containers said is all there is to look at.
    if ((code != 0)); then compose ps || true; compose logs --no-color --tail 40 || true; fi
    step "down"
    compose down --volumes --timeout 40 || code=1
    if ((code == 0)); then echo; echo "compose test: passed"; fi
    exit "$code"
}
trap finish EXIT

# The default of a variable in compose.yml.
default() { sed -n "s/.*\${$1:-\([^}]*\)}.*/\1/p" compose.yml | head -1; }
pullable() {
    [[ ${stand_ins:-} != yes ]] && { "$DOCKER" image inspect "$1" >/dev/null 2>&1 || "$DOCKER" pull --quiet "$1"; }
}

step "images"
if [[ ${1:-} == --stand-ins ]]; then stand_ins=yes; fi
for name in RUST_IMAGE RUNTIME_IMAGE NATS_IMAGE; do
    image=${!name:-$(default "$name")}
    if pullable "$image"; then
        echo "$image"
        continue
    fi
    echo "$image cannot be pulled, or is not wanted"
    case $name in
        RUST_IMAGE)
            cargo build --release --locked --bin wf
            wf=$(cargo metadata --format-version 1 --no-deps |
                python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release/wf
            ./stand-in.sh rust wf-stand-in/rust:test "$wf"
            export RUST_IMAGE=wf-stand-in/rust:test
            ;;
        RUNTIME_IMAGE)
            ./stand-in.sh runtime wf-stand-in/runtime:test
            export RUNTIME_IMAGE=wf-stand-in/runtime:test
            ;;
        NATS_IMAGE)
            version=${image#*:}
            ./stand-in.sh nats wf-stand-in/nats:test "${version%%-*}"
            export NATS_IMAGE=wf-stand-in/nats:test
            ;;
    esac
done

step "build and up"
compose build
compose up --detach --no-build

health() { "$DOCKER" inspect --format '{{.State.Health.Status}}' "$1"; }
healthy() {
    local id deadline=$((SECONDS + patience))
    for id in $(compose ps --quiet); do
        until [[ $(health "$id") == healthy ]]; do
            ((SECONDS < deadline)) || fail "$("$DOCKER" inspect --format '{{.Name}}' "$id") is $(health "$id") after $patience s"
            sleep 0.5
        done
    done
}
healthy
compose ps
mapfile -t executors < <(compose ps --quiet executor)
((${#executors[@]} == 2)) || fail "${#executors[@]} executors instead of 2"

curl_json() { curl --silent --show-error --fail-with-body --max-time "$patience" --header 'Content-Type: application/json' "$@"; }
# The outcome of a job, waited for; `$2` must be in it.
expect() {
    local outcome
    outcome=$(curl_json "$http/v1/jobs/$1?wait=30s") || fail "no outcome of $1: $outcome"
    echo "$1: $outcome"
    grep -Eq "$2" <<<"$outcome" || fail "$2 is not in it"
}
enqueue() { curl_json --data "$1" "$http/v1/jobs" | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p'; }

step "jobs by curl"
curl --silent --show-error --fail "$http/readyz"; echo
id=$(enqueue '{"kind":"math_add","args":{"a":2,"b":3},"store_result":true}')
expect "$id" '"result": *5(\.0)?[,}]'
id=$(enqueue '{"kind":"math_divide","args":{"a":1,"b":0}}')
expect "$id" '"state": *"discarded"'

step "jobs by the nats CLI"
nats=$(command -v nats || true)
tools=../target/tools
if [[ -z $nats && -x $tools/nats ]]; then nats=$tools/nats; fi
if [[ -z $nats ]] && command -v go >/dev/null; then
    mkdir -p "$tools"
    GOBIN=$(cd "$tools" && pwd) go install github.com/nats-io/natscli/nats@latest
    nats=$tools/nats
fi
if [[ -z $nats ]]; then
    echo "SKIPPED: neither nats nor go is there"
else
    cli() { "$nats" --server "nats://127.0.0.1:$WF_NATS_PORT" "$@"; }
    messages() { cli stream info "$1" --json | sed -n 's/^ *"messages": *\([0-9]*\).*/\1/p' | head -1; }
    # A job, an array of two, and two lines, each a message of its own: four runs, each with a record in WF_RESULTS.
    by_cli() {
        local before deadline
        before=$(messages WF_RESULTS)
        cli pub wf.jobs.default '{"kind":"math_add","args":{"a":2,"b":3},"store_result":true}'
        cli pub --jetstream wf.jobs.default --header "Nats-Msg-Id:compose-$1" \
            '[{"kind":"noop","args":{},"store_result":true},{"kind":"noop","args":{},"store_result":true}]'
        printf '%s\n' '{"kind":"echo","args":1,"store_result":true}' '{"kind":"echo","args":2,"store_result":true}' |
            cli pub --jetstream wf.jobs.default --send-on newline --no-templates --quiet
        deadline=$((SECONDS + patience))
        until (($(messages WF_RESULTS) >= before + 4)) && (($(messages WF_JOBS) == 0)); do
            ((SECONDS < deadline)) || fail "WF_JOBS has $(messages WF_JOBS) messages, WF_RESULTS $(messages WF_RESULTS), $before before"
            sleep 0.2
        done
        echo "WF_JOBS is empty, WF_RESULTS went from $before to $(messages WF_RESULTS) messages"
    }
    by_cli first
fi

step "one executor stops"
"$DOCKER" stop -t 40 "${executors[0]}"
code=$("$DOCKER" inspect --format '{{.State.ExitCode}}' "${executors[0]}")
((code == 0)) || fail "it ended with $code"
echo "it ended with 0"

step "the other goes on"
id=$(enqueue '{"kind":"math_multiply","args":{"a":6,"b":7},"store_result":true}')
expect "$id" '"result": *42(\.0)?[,}]'
if [[ -n $nats ]]; then by_cli second; fi

step "the broker restarts"
compose restart nats
healthy
id=$(enqueue '{"kind":"math_subtract","args":{"a":9,"b":2},"store_result":true}')
expect "$id" '"result": *7(\.0)?[,}]'
