#!/bin/sh
# What every container of these images begins with: `docker run IMAGE COMMAND…` runs it with COMMAND….
set -eu

python /opt/pedfrac/check_secrets.py

# On a read-only root, what has no volume goes where every container can write. Torch, for one, makes
# its folder for compiled code on import, even where nothing is compiled.
usable() { mkdir -p "$1" 2>/dev/null && [ -w "$1" ]; }
usable /tmp && scratch=/tmp || scratch=/dev/shm
export TMPDIR="$scratch"
usable "$HOME" || export HOME="$scratch"
usable "$PREFECT_HOME" || export PREFECT_HOME="$scratch/prefect"
usable "$TORCHINDUCTOR_CACHE_DIR" || export TORCHINDUCTOR_CACHE_DIR="$scratch/compiled"
usable "$HF_HOME" || export HF_HOME="$scratch/huggingface"
exec "$@"
