"""What is finished of a run in its folder, so that a later start does only the rest.

`stages.json` is written after each stage, when its files are flushed to the disk. It names them
with size and SHA-256, and holds what the run has learnt so far (`Record.snapshot`). The stages are
`adapter`, `merged`, `verified`, and `reported`: cards and report are written, so nothing changes
any more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from job.checkpoints import flush
from job.hashing import FileRecord, hash_file, hash_folder, holds
from job.record import Record

STAGES = "stages.json"
CARD = "README.md"  # written anew with every report
PROBE = "probe.json"  # the token ids on which the verifier compares; belongs to the adapter


class Stages:
    """The finished stages of one run.

    Args:
        folder: the run's.
        spec_hash: stages of another spec do not count.
    """

    def __init__(self, folder: Path, spec_hash: str) -> None:
        self._folder, self._spec_hash = folder, spec_hash
        self._files: dict[str, list[FileRecord]] = {}

    def __contains__(self, stage: str) -> bool:
        return stage in self._files

    def restore(self, record: Record) -> None:
        """Take over what earlier starts finished, as far as their files are still whole."""
        try:
            content = json.loads((self._folder / STAGES).read_bytes())
        except FileNotFoundError:
            return
        if content["spec_hash"] != self._spec_hash:
            return
        for stage, listed in content["stages"].items():  # in the order in which they were finished
            files = [FileRecord(**file) for file in listed]
            if not all(holds(self._folder, file) for file in files):
                break
            self._files[stage] = files
        if "adapter" in self._files:
            record.restore(content["record"])
            record.artifacts &= self._files.keys()

    def finish_part(self, part: str, record: Record) -> None:
        """`adapter` or `merged` is complete in the run's folder."""
        flush(self._folder / part)
        files = [
            f for f in hash_folder(self._folder / part, f"{part}/") if Path(f.path).name != CARD
        ]
        if part == "adapter":
            probe = self._folder / PROBE
            files.append(FileRecord(PROBE, probe.stat().st_size, hash_file(probe)))
        self.finish(part, record, files)

    def finish(self, stage: str, record: Record, files: Sequence[FileRecord] = ()) -> None:
        """A stage is finished.

        Args:
            files: that the stage has made, named from the run's folder on.
        """
        self._files[stage] = list(files)
        self._write(record.snapshot())

    def files(self, stage: str) -> list[FileRecord]:
        """What a finished stage has made."""
        return self._files[stage]

    def forget(self, *stages: str) -> None:
        """These are to be done again in this start."""
        for stage in stages:
            self._files.pop(stage, None)

    def _write(self, snapshot: dict[str, Any]) -> None:
        stages = {stage: [asdict(file) for file in files] for stage, files in self._files.items()}
        content = {"spec_hash": self._spec_hash, "stages": stages, "record": snapshot}
        aside = self._folder / f".{STAGES}"
        with aside.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._folder / STAGES)
