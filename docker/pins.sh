#!/bin/sh
# Choose from the lock file what the images install, PyTorch apart from the rest.
# Fails where something needed is not pinned there: an image holds the lock's versions or none.
set -eu
project=$1 lock=$2 out=$3

uv pip compile --quiet --universal --python-version 3.11 --extra server --constraint "$lock" \
    --no-header --no-annotate --no-emit-index-url --output-file "$out/all.txt" "$project"
if grep --invert-match --line-regexp --fixed-strings --file "$lock" "$out/all.txt"; then
    echo "Not pinned in $lock: the lines above. Run make lock." >&2
    exit 1
fi
torch='^(torch|torchvision)=='
cuda='^(triton==|nvidia-|cuda-)'
grep -E "$torch" "$out/all.txt" > "$out/torch-cpu.txt"
grep -E "$torch|$cuda" "$out/all.txt" > "$out/torch-gpu.txt"
grep -vE "$torch|$cuda" "$out/all.txt" > "$out/rest.txt"
