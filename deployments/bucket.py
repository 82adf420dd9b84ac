"""Copy a bucket to a folder and back, by the usual AWS variables.

bucket.py save BUCKET FOLDER     every object as a file of its name; large ones only once
bucket.py load BUCKET FOLDER     every file as an object; a bucket that is missing is made
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3

AT_ONCE = 8


def objects(client: Any, bucket: str) -> Iterator[tuple[str, int]]:
    """Yield name and size of every object."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page.get("Contents", []):
            yield found["Key"], found["Size"]


def save(client: Any, bucket: str, folder: Path) -> int:
    """Download every object; return how many there are.

    One that is there in its size is skipped, since what lies in artifacts never changes; but for
    small ones, such as manifests, which are copied again.
    """

    def fetch(found: tuple[str, int]) -> None:
        name, size = found
        path = folder / name
        if path.is_file() and path.stat().st_size == size > 2**20:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, name, str(path))

    return _side_by_side(fetch, objects(client, bucket))


def load(client: Any, bucket: str, folder: Path) -> int:
    """Upload every file; return how many there are. Manifests go last, as they do when made."""
    if bucket not in {found["Name"] for found in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    last = [path for path in files if path.name == "manifest.json"]

    def send(path: Path) -> None:
        client.upload_file(str(path), bucket, path.relative_to(folder).as_posix())

    return _side_by_side(send, set(files) - set(last)) + _side_by_side(send, last)


def _side_by_side(work: Any, on: Any) -> int:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return sum(1 for _ in threads.map(work, on))


if __name__ == "__main__":
    what, bucket, folder = sys.argv[1:]
    count = {"save": save, "load": load}[what](boto3.client("s3"), bucket, Path(folder))
    print(f"{count} objects")
