"""Artifacts by content, in a local folder or in S3."""
