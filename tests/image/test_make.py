"""The Makefile's image targets, where they refuse."""

from __future__ import annotations

import os
import subprocess

from tests.image.conftest import ROOT


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a fresh shell: without what an outer make passes on."""
    inherited = ("MAKE", "MFLAGS", "IMAGE", "DOCKER")
    env = {name: value for name, value in os.environ.items() if not name.startswith(inherited)}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )


def test_a_push_without_a_name_is_refused_before_anything_is_built() -> None:
    done = make("push-image")
    assert done.returncode != 0
    assert "make push-image IMAGE=" in done.stderr
    assert done.stdout == ""


def test_without_an_engine_the_image_is_an_error_and_not_a_skip() -> None:
    done = make("image", "DOCKER=no-such-docker")
    assert done.returncode != 0
    assert "No container engine answers" in done.stderr
