#!/bin/sh
# Put back what backup.sh saved, on a machine where nothing of it runs yet and the volumes are empty:
#   docker/restore.sh FOLDER [options of docker compose, such as --env-file FILE]
# Then `docker compose up` as ever: it migrates the databases to the version that is installed.
set -eu
folder=$1
shift
root=$(dirname "$0")
compose() { ${COMPOSE:-docker compose} --file "$root/compose.yaml" "$@"; }

compose "$@" up --detach --wait postgres s3
for name in prefect mlflow; do
    compose "$@" exec -T postgres pg_restore --username=pedfrac --exit-on-error --no-owner \
        --dbname="$name" < "$folder/$name.dump"
done
compose "$@" run --rm --no-deps --no-TTY --user "$(id -u)" \
    --volume "$(realpath "$folder"):/backup:ro" \
    init sh -c 'python deployments/bucket.py load "$S3_BUCKET" /backup/bucket'
