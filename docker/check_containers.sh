#!/bin/bash
# Build the image and run the compose file for real: under load, with a retraining, a restart, every
# service killed, a backup restored. Not part of CI; docs/containers.md keeps the last run.
#
#   docker/check_containers.sh [cpu|gpu]     which build of PyTorch the services get (default: cpu)
#
# Needs a Docker daemon (DOCKER_HOST) and Compose, root to kill processes inside containers, and
# about 12 GB of disk. It uses a Compose project and volumes of its own and removes them in the end.
set -euo pipefail
cd "$(dirname "$0")/.."
variant=${1:-cpu}
scratch=$(mktemp -d)
busy=()
chmod 755 "$scratch"

compose() {
    "${COMPOSE:-docker-compose}" --file docker/compose.yaml --project-name pedfrac-check \
        --env-file "$scratch/env" --profile no-gpu "$@"
}
finish() {
    status=$?
    ((${#busy[@]} == 0)) || kill "${busy[@]}" 2> /dev/null || true
    if ((status != 0)); then
        compose ps --all || true
        compose logs --tail 30 > check_containers.log 2>&1 || true
        echo "FAILED; the services' last words are in check_containers.log"
    fi
    compose down --volumes --timeout 20 > /dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap finish EXIT

since=$SECONDS
passed() {
    printf '%-72s %4d s\n' "$1" $((SECONDS - since))
    since=$SECONDS
}
fail() {
    echo "$1"
    exit 1
}

settings() { # [secret]
    cat > "$scratch/env" <<SETTINGS
POSTGRES_PASSWORD=${1-$(openssl rand -hex 24)}
PREFECT_AUTH=admin:$(openssl rand -hex 24)
S3_ACCESS_KEY_ID=pedfrac
S3_SECRET_ACCESS_KEY=$(openssl rand -hex 24)
DATA=$scratch/data
SETTINGS
}
image() { docker run --rm --read-only --cap-drop ALL --network none "$@"; }

check_image() {
    docker build --file docker/Dockerfile --build-arg "VARIANT=$variant" ${BUILD_NETWORK:+--network "$BUILD_NETWORK"} \
        --tag "pedfrac:$variant" . > "$scratch/build.log" 2>&1 || {
        tail -30 "$scratch/build.log"
        fail "the image cannot be built"
    }
    docker tag "pedfrac:$variant" pedfrac:cpu
    passed "image built: $(docker image inspect --format '{{.Size}}' pedfrac:cpu |
        awk '{printf "%.2f GB", $1 / 1e9}')"
    since=$SECONDS
    [ "$(image pedfrac:cpu id -u)" = 10001 ] || fail "it does not run as user 10001"
    ! image pedfrac:cpu touch /opt/pedfrac/new 2> /dev/null || fail "its root can be written to"
    # with no volume at all, not even a folder for temporary files
    image pedfrac:cpu python -c "import flows.retrain" 2> "$scratch/words" ||
        fail "$(cat "$scratch/words")"
    [ ! -s "$scratch/words" ] || fail "it complains: $(cat "$scratch/words")"
    mkdir --mode=777 "$scratch/data"
    image --volume "$scratch/data:/made" pedfrac:cpu \
        pedfrac phantom /made/data --images 300 --scale 0.2 > /dev/null
    mv "$scratch/data" "$scratch/made" && mv "$scratch/made/data" "$scratch/data"
    passed "runs as user 10001 on a read-only root without any volume"
}

check_secrets() {
    settings ""
    words=$(compose up --detach 2>&1) && fail "it starts without a secret"
    grep --quiet 'POSTGRES_PASSWORD is missing a value: set it in docker/.env' <<< "$words" ||
        fail "$words"
    settings change-me
    ! compose up --detach > /dev/null 2>&1 || fail "it starts with an example's secret"
    words=$(compose logs --no-log-prefix secrets)
    [[ $(wc -l <<< "$words") == 1 && $words == "POSTGRES_PASSWORD: 'change-me' is an example"* ]] ||
        fail "not one clear line: $words"
    [ -z "$(compose ps --quiet --status running)" ] || fail "something runs all the same"
    compose down --volumes > /dev/null 2>&1
    passed "refuses a missing secret and one of an example, each with one line"
}

healthy() { # services… are healthy within 15 minutes
    local name container waiting
    for _ in {1..180}; do
        waiting=0
        for name in "$@"; do
            container=$(compose ps --quiet "$name")
            [ -n "$container" ] &&
                [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = healthy ] ||
                waiting=1
        done
        ((waiting == 0)) && return
        sleep 5
    done
    fail "not healthy: $*"
}
services=(postgres s3 prefect mlflow worker-cpu worker-no-gpu)

retrain() { # DEPLOYMENT, name of the state that it must end in
    compose run --rm --no-deps --volume "$PWD/docker:/checks:ro" init \
        python /checks/check_retraining.py "$1" "$2" > "$scratch/retrain.log" 2>&1 || {
        tail -30 "$scratch/retrain.log"
        fail "$1 did not end as $2"
    }
}

check_image
check_secrets

settings
for _ in 1 2; do
    nice sh -c 'while :; do :; done' &
    busy+=($!)
done
compose up --detach > "$scratch/up.log" 2>&1 || {
    tail -20 "$scratch/up.log"
    fail "it does not come up on the first try"
}
healthy "${services[@]}"
passed "comes up on the first try beside two busy processes"
kill "${busy[@]}" && busy=()

retrain retrain Completed
passed "a retraining on 300 phantoms completes inside"

compose down > /dev/null 2>&1
compose up --detach > "$scratch/up.log" 2>&1 || fail "it does not come up again"
healthy "${services[@]}"
retrain retrain-weekly "Nothing to do"
passed "down and up: nothing is lost, the next retraining has nothing to do"

for name in "${services[@]}"; do
    container=$(compose ps --quiet "$name")
    before=$(docker inspect --format '{{.State.StartedAt}}' "$container")
    kill -9 "$(docker inspect --format '{{.State.Pid}}' "$container")"
    until [ "$(docker inspect --format '{{.State.StartedAt}}' "$container")" != "$before" ]; do
        sleep 1
    done
    healthy "${services[@]}"
    passed "kill -9 of $name: healthy again"
done
retrain retrain-weekly "Nothing to do"
passed "after all of them were killed, a retraining has nothing to do"

export COMPOSE=${COMPOSE:-docker-compose}
options=(--project-name pedfrac-check --env-file "$scratch/env" --profile no-gpu)
docker/backup.sh "$scratch/backup" "${options[@]}" > "$scratch/backup.log" 2>&1 || {
    tail "$scratch/backup.log"
    fail "no backup"
}
compose down --volumes > /dev/null 2>&1
passed "backup: $(du --summarize --human-readable "$scratch/backup" | cut --fields 1); then all volumes are removed"
docker/restore.sh "$scratch/backup" "${options[@]}" > "$scratch/restore.log" 2>&1 || {
    tail "$scratch/restore.log"
    fail "the backup cannot be restored"
}
compose up --detach > "$scratch/up.log" 2>&1 || fail "it does not come up again"
healthy "${services[@]}"
retrain retrain-weekly "Nothing to do"
passed "restored on empty volumes, a retraining has nothing to do"
