"""A job spec at an s3:// or https:// address, read by the rules that hold for datasets."""

from __future__ import annotations

from job.credentials import Credentials


def fetch_text(uri: str, credentials: Credentials) -> bytes:
    """The content of a small file, e.g. a job spec.

    Args:
        uri: s3:// or https://, the latter with any query; messages leave the query out.

    Raises:
        NotFound, AccessRefused, Unavailable: as for a dataset at the same place.
        DataError: it has more than `job.sources.SMALL` bytes.
    """
    where = f"JOB_SPEC {uri.partition('?')[0]}"
    if uri.startswith("s3://"):
        from job.sources import s3

        return s3.read_small(uri, credentials, where)
    from job.sources import https

    return https.read_small(uri, where)
