"""A folder as a store: atomic writes, and compare-and-swap under a file lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from job.disk import sync
from job.errors import AccessRefused, InternalError, JobError, OutOfResources, UploadFailed
from job.hashing import FileRecord, hash_file
from job.store.keys import Sent, Stored, safe_key

_CHUNK = 8 * 2**20
_OPEN_ATTEMPTS = 100


class FileStore:
    """Keys are paths below `folder`; an etag is the SHA-256 of the content.

    What a reader sees is always a whole file: each is written beside its place, flushed to the
    disk and renamed. Folders that this store made go again with their last file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: set[Path] = set()
        self.uri = f"file://{folder}"

    def within(self, seconds: float) -> FileStore:
        return self

    def get(self, key: str) -> Stored | None:
        path = self._path(key)
        with _told(self.uri):
            try:
                content = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return Stored(content, hashlib.sha256(content).hexdigest())

    def put(self, key: str, content: bytes) -> None:
        path = self._path(key)
        with _told(self.uri), self._beside(path) as temporary:
            _write(temporary, content)
            os.replace(temporary, path)
            sync(path.parent)

    def put_if_absent(self, key: str, content: bytes) -> str | None:
        path = self._path(key)
        with _told(self.uri), self._locked(path), self._beside(path) as temporary:
            _write(temporary, content)
            try:
                os.link(temporary, path)  # fails, rather than replaces, on every machine at once
            except FileExistsError:
                return None
            sync(path.parent)
        return hashlib.sha256(content).hexdigest()

    def put_if_match(self, key: str, content: bytes, etag: str) -> str | None:
        with _told(self.uri), self._locked(self._path(key)):
            found = self.get(key)
            if found is None or found.etag != etag:
                return None
            self.put(key, content)
        return hashlib.sha256(content).hexdigest()

    def put_file(self, key: str, path: Path, record: FileRecord, sent: Sent) -> int:
        """Verified by reading the file at its destination again and hashing it."""
        if self.digest(key) == (record.size, record.sha256):
            sent(record.size)
            return 0
        target = self._path(key)
        with _told(self.uri), self._beside(target) as temporary:
            with path.open("rb") as source, temporary.open("wb") as sink:
                while chunk := source.read(_CHUNK):
                    sink.write(chunk)
                    sent(len(chunk))
                sink.flush()
                os.fsync(sink.fileno())
            os.replace(temporary, target)
            sync(target.parent)
        if self.digest(key) != (record.size, record.sha256):
            raise UploadFailed(f"{self.uri}/{key} does not hold what was written to it")
        return record.size

    def get_file(self, key: str, path: Path) -> None:
        with _told(self.uri):
            shutil.copyfile(self._path(key), path)

    def digest(self, key: str) -> tuple[int, str] | None:
        path = self._path(key)
        with _told(self.uri):
            return (path.stat().st_size, hash_file(path)) if path.is_file() else None

    def list(self, prefix: str = "") -> list[str]:
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        found = {}
        with _told(self.uri):
            for path in self._folder.rglob("*"):
                key = path.relative_to(self._folder).as_posix()
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    if key.startswith(prefix) and stat.S_ISREG((info := path.stat()).st_mode):
                        found[key] = info.st_size
        return found

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _told(self.uri):
            path.unlink(missing_ok=True)
            self._forget_empty_folders(path.parent)

    def drop_unfinished(self, prefix: str = "") -> None:
        """There are none: what is written has another name until it is whole."""

    def _path(self, key: str) -> Path:
        path = self._folder / safe_key(key)
        if not path.parent.resolve().is_relative_to(self._folder.resolve()):
            raise InternalError(f"a link leads out of the destination: {self.uri}/{key}")
        return path

    def _open(self, path: Path) -> int:
        """Open or create a file and the folders above it, remembering those that were missing."""
        folder = path.parent
        for attempt in range(_OPEN_ATTEMPTS):
            missing = [f for f in (folder, *folder.parents) if not f.exists()]
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._made.update(missing)
                return os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
            except FileNotFoundError:  # another process removed the folder while it was empty
                if attempt == _OPEN_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _forget_empty_folders(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # not empty, or another process was faster
            while folder in self._made:
                folder.rmdir()
                self._made.remove(folder)
                folder = folder.parent

    @contextlib.contextmanager
    def _beside(self, path: Path) -> Iterator[Path]:
        """A new empty file in the same folder, gone afterwards whatever happens."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        os.close(self._open(temporary))
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Hold `path`'s lock; the lock's file is removed by whoever holds it."""
        lock = path.with_name(f".{path.name}.lock")
        while True:
            handle = self._open(lock)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_still(lock, handle):
                break
            os.close(handle)  # its last holder removed it while this one waited
        try:
            yield
        finally:
            lock.unlink()
            os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _told(uri: str) -> Iterator[None]:
    """Turn an OSError into the JobError that says what to do."""
    try:
        yield
    except OSError as error:
        raise _translated(error, uri) from error


def _translated(error: OSError, uri: str) -> JobError:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessRefused(f"{uri} is not writable by this user ({error.strerror})")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutOfResources(f"{uri}: no space left to write to ({error.strerror})")
    if error.errno == errno.ENOENT:
        return AccessRefused(f"{uri}: the folder cannot be made there")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return AccessRefused(f"{uri}: a file is in the way of a folder of the same name")
    return UploadFailed(f"{uri}: {error.strerror or type(error).__name__}")
