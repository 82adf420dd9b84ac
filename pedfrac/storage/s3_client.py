"""Objects below ``s3://bucket/prefix``: put, get, list and delete, with retries and checksums.

The only module that imports boto3. Credentials, endpoint and region come from the environment as
boto3 reads them.
"""

import base64
import hashlib
import logging
import os
import random
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from s3transfer.exceptions import RetriesExceededError

from pedfrac.errors import PedfracError

logger = logging.getLogger(__name__)
T = TypeVar("T")
PATIENCE = 90.0  # seconds without any success after which an outage is an error
PART = 16 * 1024**2  # bytes of one part; memory is bounded by a few parts for each connection
CONNECTIONS = 8
_DELETE_BATCH = 1000  # the most keys that S3 deletes in one request
_FAILURES = (BotoCoreError, ClientError, RetriesExceededError)
_PASSING_CODES = {"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "Throttling"}
_PASSING_ERRORS = (HTTPClientError, IncompleteReadError, FlexibleChecksumError)


@dataclass(frozen=True)
class ObjectInfo:
    """An object as a listing shows it; the name is relative to the prefix."""

    name: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Upload:
    """A file on its way to an object; the store refuses it if it has another SHA-256."""

    path: Path
    name: str
    sha256: str


class Objects:
    """The objects below a prefix of a bucket. Every failure is a PedfracError naming the object."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise PedfracError(f"{url}: must look like s3://bucket/prefix")
        self.bucket = parts.netloc
        names = [name for name in parts.path.split("/") if name]
        self._prefix = "".join(f"{name}/" for name in names)

    def url(self, name: str = "") -> str:
        """Return the address of an object, or of the prefix."""
        return f"s3://{self.bucket}/{self._prefix}{name}".rstrip("/")

    @property
    def endpoint(self) -> str:
        """The address of the server."""
        return str(_client().meta.endpoint_url)

    def get(self, name: str) -> bytes | None:
        """Return the content of an object, or None if it does not exist."""

        def get() -> bytes | None:
            try:
                found = _client().get_object(Bucket=self.bucket, Key=self._prefix + name)
                return bytes(found["Body"].read())
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise

        return self._patiently(name, get)

    def exists(self, name: str) -> bool:
        """Return whether there is an object of this name."""

        def head() -> bool:
            try:
                _client().head_object(Bucket=self.bucket, Key=self._prefix + name)
            except ClientError as error:
                if _is_missing(error):
                    return False
                raise
            return True

        return self._patiently(name, head)

    def put(self, name: str, data: bytes) -> None:
        """Write an object, replacing an existing one."""
        self._patiently(name, lambda: self._put(name, data))

    def put_new(self, name: str, data: bytes) -> bool:
        """Write an object if none of this name exists; return whether ours was written.

        Where the store does not honour conditional puts, another writer may still replace it.
        """
        if not _honours_conditional_puts(self.url(), *_surroundings()):
            if (there := self.get(name)) is not None:
                return there == data
            self.put(name, data)
            return self.get(name) == data

        def put_new() -> bool:
            try:
                self._put(name, data, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) not in ("PreconditionFailed", "412"):
                    raise
                # an earlier try of ours may have got through and only its answer been lost
                return self.get(name) == data
            return True

        return self._patiently(name, put_new)

    def listing(self, below: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects whose names start with ``below``, by name."""
        for page in self._pages(below):
            for found in page.get("Contents", []):
                yield ObjectInfo(
                    found["Key"].removeprefix(self._prefix),
                    found["Size"],
                    found["ETag"].strip('"'),
                    found["LastModified"],
                )

    def folders(self, below: str = "") -> list[str]:
        """Return the names of the folders right below a folder (``""`` or ending in ``/``)."""
        return [
            found["Prefix"].removeprefix(self._prefix + below).rstrip("/")
            for page in self._pages(below, Delimiter="/")
            for found in page.get("CommonPrefixes", [])
        ]

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there count as deleted."""
        keys = [{"Key": self._prefix + name} for name in names]
        for start in range(0, len(keys), _DELETE_BATCH):
            batch = {"Objects": keys[start : start + _DELETE_BATCH], "Quiet": True}
            self._patiently("", partial(self._delete, batch))

    def upload(self, files: Sequence[Upload]) -> None:
        """Upload files side by side, large ones in parts, each checked by SHA-256 on arrival."""

        def start(manager: Any, file: Upload) -> Any:
            return manager.upload(
                str(file.path), self.bucket, self._prefix + file.name, _checksum(file)
            )

        self._transfer({file.name: file for file in files}, start)

    def download(
        self, files: Mapping[str, Path], done: Callable[[str], None] = lambda name: None
    ) -> list[str]:
        """Download objects by name to files, in parallel; return the names that do not exist.

        ``done(name)`` is called for each downloaded file. Only the transport is verified here.
        """

        def start(manager: Any, item: tuple[str, Path]) -> Any:
            return manager.download(self.bucket, self._prefix + item[0], str(item[1]))

        return self._transfer({name: (name, path) for name, path in files.items()}, start, done)

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 of an object as read now, or None if it does not exist."""

        def read() -> str | None:
            try:
                found = _client().get_object(Bucket=self.bucket, Key=self._prefix + name)
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise
            digest = hashlib.sha256()
            for chunk in found["Body"].iter_chunks(PART):
                digest.update(chunk)
            return digest.hexdigest()

        return self._patiently(name, read)

    def open_uploads(self, begun_before: datetime) -> list[tuple[str, str]]:
        """Return names and ids of multipart uploads begun before a time and not completed."""
        asked = {"Bucket": self.bucket, "Prefix": self._prefix}

        def list_uploads() -> dict[str, Any]:
            try:
                return dict(_client().list_multipart_uploads(**asked))
            except ClientError as error:
                if _code(error) == "NotImplemented":  # no such list, so nothing to be found by it
                    return {}
                raise

        page = self._patiently("", list_uploads)
        return [
            (found["Key"].removeprefix(self._prefix), found["UploadId"])
            for found in page.get("Uploads", [])
            if found["Initiated"] < begun_before
        ]

    def abort_upload(self, name: str, upload: str) -> None:
        """Remove the parts of an upload that will never be done."""
        asked = {"Bucket": self.bucket, "Key": self._prefix + name, "UploadId": upload}
        self._patiently(name, partial(_client().abort_multipart_upload, **asked))

    def _put(self, name: str, data: bytes, **more: str) -> None:
        _client().put_object(
            Bucket=self.bucket,
            Key=self._prefix + name,
            Body=data,
            ChecksumAlgorithm="SHA256",
            **more,
        )

    def _delete(self, batch: Any) -> None:
        answer = _client().delete_objects(Bucket=self.bucket, Delete=batch)
        if errors := answer.get("Errors"):
            first = errors[0]
            raise PedfracError(
                f"s3://{self.bucket}/{first['Key']}: cannot be deleted "
                f"({first.get('Code')}: {first.get('Message')})"
            )

    def _pages(self, below: str, **more: str) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            asked = {"Bucket": self.bucket, "Prefix": self._prefix + below, **more, **token}
            page = self._patiently(below, partial(_client().list_objects_v2, **asked))
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _transfer(
        self,
        items: Mapping[str, T],
        start: Callable[[Any, T], Any],
        done: Callable[[str], None] = lambda name: None,
    ) -> list[str]:
        """Run transfers in parallel, retrying those that an outage stopped; return what is missing.

        The time limit restarts whenever a transfer succeeds.
        """
        waiting, missing = dict(items), list[str]()

        def once() -> None:
            failure, before = None, len(waiting)
            with closing(_run_all(waiting, start)) as results:
                for name, error in results:
                    if error is None:
                        done(name)
                    elif _is_missing(error):
                        missing.append(name)
                    elif _is_passing(error):
                        failure = error
                        continue
                    else:
                        raise error
                    del waiting[name]
            if failure is not None and len(waiting) == before:
                raise failure

        while waiting:
            self._patiently(next(iter(waiting)), once)
        return missing

    def _patiently(self, name: str, call: Callable[[], T]) -> T:
        """Return what a call returns, repeating it through outages shorter than ``PATIENCE``.

        botocore has retried each request a few times by then; this outlasts what takes longer.
        """
        began, wait = time.monotonic(), 0.5
        while True:
            try:
                return call()
            except _FAILURES as error:
                if not _is_passing(error) or time.monotonic() - began > PATIENCE:
                    raise PedfracError(f"{self.url(name)}: {_reason(error)}") from error
                logger.warning("%s: %s; trying again", self.url(name), _reason(error))
            time.sleep(random.uniform(wait / 2, wait))
            wait = min(2 * wait, 8)


def _run_all(
    items: Mapping[str, T], start: Callable[[Any, T], Any]
) -> Generator[tuple[str, Exception | None]]:
    """Start all transfers; yield each name with the error that its transfer ended in, or None."""
    with create_transfer_manager(_client(), _transfer_config()) as manager:
        futures = {name: start(manager, item) for name, item in items.items()}
        for name, future in futures.items():
            try:
                future.result()
            except _FAILURES as error:
                yield name, error
            else:
                yield name, None


def _transfer_config() -> TransferConfig:
    return TransferConfig(
        multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=CONNECTIONS
    )


def _checksum(file: Upload) -> dict[str, str]:
    # S3 takes the SHA-256 of a whole object only where it comes in one part, else one a part
    if file.path.stat().st_size < PART:
        return {"ChecksumSHA256": base64.b64encode(bytes.fromhex(file.sha256)).decode()}
    return {"ChecksumAlgorithm": "SHA256"}


def _client() -> Any:
    return _client_of(*_surroundings())


def _surroundings() -> tuple[int, tuple[tuple[str, str], ...]]:
    """Return what a client depends on: a process, since a fork must not share its sockets."""
    return os.getpid(), tuple(sorted(i for i in os.environ.items() if i[0].startswith("AWS_")))


@lru_cache(maxsize=4)
def _client_of(process: int, environment: tuple[tuple[str, str], ...]) -> Any:
    """Return the client of a process; it takes half a second to make, and is safe for threads."""
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=2 * CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 6},
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except ValueError as error:  # of an endpoint, as botocore has it
        raise PedfracError(
            f"AWS_ENDPOINT_URL: {error}; it must look like http://host:port or https://host"
        ) from None
    except BotoCoreError as error:
        raise PedfracError(f"S3 cannot be reached by what AWS_… is set to: {error}") from None


@lru_cache(maxsize=16)
def _honours_conditional_puts(
    url: str, process: int, environment: tuple[tuple[str, str], ...]
) -> bool:
    """Return whether a store refuses the second of two conditional puts of one name."""
    objects = Objects(url)
    name = f".probes/{uuid.uuid4().hex}"

    def put_twice() -> bool:
        try:
            objects._put(name, b"first", IfNoneMatch="*")
            objects._put(name, b"second", IfNoneMatch="*")
        except ClientError as error:
            if _is_passing(error) or _code(error) in ("AccessDenied", "NoSuchBucket"):
                raise
            return _code(error) in ("PreconditionFailed", "412") and objects.get(name) == b"first"
        return False

    honoured = objects._patiently(name, put_twice)
    objects.delete([name])
    if not honoured:
        logger.warning(
            "%s: the store does not honour conditional puts (If-None-Match): of two writers of one "
            "artifact at the same moment the later replaces the earlier",
            objects.url(),
        )
    return honoured


def _is_passing(error: Exception) -> bool:
    """Return whether the same request may succeed later."""
    if isinstance(error, RetriesExceededError):
        return True
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return _code(error) in _PASSING_CODES or (status >= 500 and status != 501)
    return isinstance(error, _PASSING_ERRORS) and not isinstance(error, SSLError)


def _is_missing(error: Exception) -> bool:
    return isinstance(error, ClientError) and _code(error) in ("NoSuchKey", "404")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _reason(error: Exception) -> str:
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return (
            "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or another source that boto3 reads"
        )
    if isinstance(error, RetriesExceededError):
        return _reason(error.last_exception)
    if isinstance(error, ClientError):
        message = error.response.get("Error", {}).get("Message", "")
        return f"{_code(error)} ({message})" if message else _code(error)
    return str(error)
