"""URIs: is a place a local folder or object storage?"""

from pathlib import Path


def is_remote(root: str | Path) -> bool:
    """Return whether a root names object storage, ``s3://bucket/prefix``, and not a folder."""
    return str(root).startswith("s3://")
