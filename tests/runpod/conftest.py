"""Fixtures of the RunPod tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.drills.conftest import drill  # noqa: F401 - a fixture
from tests.runpod.pod_api import PodApi, pod_api


@pytest.fixture
def api() -> Iterator[PodApi]:
    with pod_api() as running:
        yield running
