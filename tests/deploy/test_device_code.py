"""Device code of refused cards is blanked, and nothing else; on small containers made by hand."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.device_code import (
    CONTAINER,
    ENTRY,
    MACHINE_CODE,
    NEWEST,
    OLDEST,
    PTX,
    blank,
    main,
)
from job.architectures import COMPILED, MIN_CAPABILITY

ROOT = Path(__file__).parent.parent.parent
HEADER = 64  # bytes of an entry's header in CUDA 12


def entry(kind: int, architecture: int) -> bytes:
    payload = f"{kind} for {architecture}".encode().ljust(32, b".")
    return ENTRY.pack(kind, 1, HEADER, len(payload), architecture).ljust(HEADER, b"\1") + payload


def container(*entries: tuple[int, int]) -> bytes:
    held = b"".join(entry(*one) for one in entries)
    return CONTAINER.pack(0xBA55ED50, 1, CONTAINER.size, len(held)) + held


def blanked(before: bytes, library: Path) -> set[bytes]:
    """The payloads that were there before and are zeros now; nothing else may differ."""
    library.write_bytes(before)
    size = blank(str(library))
    after = library.read_bytes()
    parts = {before[at : at + 32] for at in range(len(before)) if before[at + 1 :][:5] == b" for "}
    gone = {part for part in parts if part not in after}
    assert size == 32 * sum(before.count(part) for part in gone)
    expected = before
    for part in gone:
        expected = expected.replace(part, bytes(32))
    assert after == expected
    return {part.rstrip(b".") for part in gone}


def test_code_of_older_cards_goes_and_that_of_every_card_in_the_table_stays(tmp_path):
    ours = [(MACHINE_CODE, 10 * major + minor) for major, minor in COMPILED]
    older = [(MACHINE_CODE, 50), (MACHINE_CODE, 61), (MACHINE_CODE, 70)]
    library = b"head" + container(*older, *ours) + b"between" + container(*ours, *older) + b"tail"
    assert blanked(library, tmp_path / "lib.so") == {b"2 for 50", b"2 for 61", b"2 for 70"}


def test_code_for_7_0_stays_where_a_7_5_has_no_other(tmp_path):
    library = container((MACHINE_CODE, 60), (MACHINE_CODE, 70), (MACHINE_CODE, 80))
    assert blanked(library, tmp_path / "lib.so") == {b"2 for 60"}


def test_ptx_goes_where_it_serves_only_cards_newer_than_the_newest(tmp_path):
    older = container((PTX, 80), (MACHINE_CODE, 80))
    alone = container((PTX, 120), (MACHINE_CODE, 50), (MACHINE_CODE, 100))
    beside = container((PTX, 120), (MACHINE_CODE, 120))
    assert blanked(older, tmp_path / "lib.so") == set()
    assert blanked(alone, tmp_path / "lib.so") == {b"2 for 50"}  # all that a 12.0 has
    assert blanked(beside, tmp_path / "lib.so") == {b"1 for 120"}


def test_a_library_without_such_code_is_an_error_that_names_it(tmp_path):
    library = tmp_path / "lib.so"
    library.write_bytes(container((MACHINE_CODE, 80)))
    with pytest.raises(SystemExit, match=r"lib\.so: no device code for cards that are refused"):
        main([str(library)])


def test_the_oldest_and_the_newest_are_those_of_the_table():
    assert 10 * MIN_CAPABILITY[0] + MIN_CAPABILITY[1] == OLDEST
    assert max(10 * major + minor for major, minor in COMPILED) == NEWEST


def test_packages_that_share_their_files_with_uvs_cache_are_left_alone(tmp_path):
    library = tmp_path / "site-packages/torch/lib/libtorch_cuda.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(container((MACHINE_CODE, 50)))
    (tmp_path / "cache").hardlink_to(library)
    command = ["sh", ROOT / "deploy/trim.sh", tmp_path / "site-packages"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "--link-mode copy" in done.stderr
    assert library.read_bytes() == container((MACHINE_CODE, 50))
