"""Blank out of shared libraries the machine code of cards that the job refuses.

    python3 device_code.py LIBRARY...

Sizes and offsets stay, so nothing needs to be linked anew; the zeros take no room in a compressed
layer. A library that has none of that code is an error: its name or its build has changed. The
licence of a library must allow changes, which NVIDIA's for cuBLAS, cuDNN and the like does not.

Device code lies in containers ("fatbins"), one for each source file: a header, then for each
architecture an entry, itself header and payload. The driver reads the entries' headers and then the
one payload that suits the card, so a blank payload for a card that is not there is never read.
"""

from __future__ import annotations

import mmap
import re
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

# Magic, version, length of the header; then the length of all entries, 8 bytes.
CONTAINER = struct.Struct("<IHHQ")
CONTAINERS = re.compile(re.escape(struct.pack("<IHH", 0xBA55ED50, 1, CONTAINER.size)))
# Kind, version, length of header and of payload, 12 bytes of other things, architecture.
ENTRY = struct.Struct("<HHIQ12xI")
PTX, MACHINE_CODE = 1, 2

OLDEST = 75  # job/architectures.py: what is older is refused
NEWEST = 120  # as is what is newer: torch 2.8.0 has nothing for it


class Entry(NamedTuple):
    """Code of one kind for one architecture; `start` and `size` are of the payload, in bytes."""

    kind: int
    architecture: int
    start: int
    size: int


def containers(data: mmap.mmap) -> Iterator[list[Entry]]:
    """The entries of each container in a file."""
    for found in CONTAINERS.finditer(data):
        at = found.start() + CONTAINER.size
        end = at + CONTAINER.unpack_from(data, found.start())[3]
        entries = []
        while at < end:
            kind, _, header, size, architecture = ENTRY.unpack_from(data, at)
            entries.append(Entry(kind, architecture, at + header, size))
            at += header + size
        yield entries


def unused(entries: list[Entry]) -> list[Entry]:
    """The entries that no card of the table in docs/image.md runs.

    A card runs machine code of its own major version, up to its own minor one: code for 7.0 is what
    a 7.5 runs where there is none for 7.5. PTX is compiled for cards without machine code; beside
    that of the newest architecture it serves newer ones alone.
    """
    built = {entry.architecture for entry in entries if entry.kind == MACHINE_CODE}

    def refused(entry: Entry) -> bool:
        if entry.kind == MACHINE_CODE:
            same_major = entry.architecture // 10 == OLDEST // 10
            return entry.architecture < OLDEST and (OLDEST in built or not same_major)
        return entry.kind == PTX and entry.architecture == NEWEST and NEWEST in built

    return [entry for entry in entries if refused(entry)]


def blank(library: str) -> int:
    """Overwrite what is unused with zeros; how many bytes that were."""
    with open(library, "r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        entries = [entry for held in containers(data) for entry in unused(held)]
        for entry in entries:
            data[entry.start : entry.start + entry.size] = bytes(entry.size)
    return sum(entry.size for entry in entries)


def main(libraries: list[str]) -> None:
    """Blank each, and tell what it saved."""
    for library in libraries:
        size = blank(library)
        if not size:
            raise SystemExit(f"{library}: no device code for cards that are refused")
        print(f"{size / 1e6:8.1f} MB  blank: device code of refused cards in {library}")


if __name__ == "__main__":
    main(sys.argv[1:])
