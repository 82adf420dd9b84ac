#!/bin/sh
# Save what compose.yaml keeps, both databases and the bucket, while all of it runs:
#   docker/backup.sh FOLDER [options of docker compose, such as --env-file FILE]
# The databases come first: what they name was in the bucket before.
set -eu
folder=$1
shift
root=$(dirname "$0")
mkdir -p "$folder/bucket"
compose() { ${COMPOSE:-docker compose} --file "$root/compose.yaml" "$@"; }

for name in prefect mlflow; do
    compose "$@" exec -T postgres pg_dump --username=pedfrac --format=custom "$name" \
        > "$folder/$name.dump.new"
    mv "$folder/$name.dump.new" "$folder/$name.dump"
done
compose "$@" run --rm --no-deps --no-TTY --user "$(id -u)" \
    --volume "$(realpath "$folder"):/backup" \
    init sh -c 'python deployments/bucket.py save "$S3_BUCKET" /backup/bucket'
