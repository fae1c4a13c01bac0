"""The image under test, a model, the example data, and volumes of its own for each test run."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.engine import Ended, Engine

ROOT = Path(__file__).parent.parent.parent

DEMO = {
    "JOB_DEVICE": "cpu",
    "JOB_MODEL": "/model",
    "JOB_DATASET": "/examples/multilingual-thinking.jsonl",
    "JOB_OUTPUT": "file:///output",
    "JOB_NAME": "demo",
    "JOB_MAX_STEPS": "3",
    "JOB_BATCH_SIZE": "2",
    "JOB_MAX_SEQ_LENGTH": "1024",
    "JOB_PROMPTS": '["Why is the sky blue?"]',
    "JOB_SAMPLE_TOKENS": "8",
    "JOB_LOG_FORMAT": "json",
}

VOLUMES = ("work", "output")


@pytest.fixture(scope="session")
def model() -> Path:
    """The demo's model, SmolLM2-135M-Instruct, as a folder that any user may read."""
    folder = ROOT / ".demo" / "model"
    script = ROOT / "examples" / "smollm2.py"
    subprocess.run([sys.executable, script, folder], check=True, timeout=300)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes for its owner alone
    return folder


@pytest.fixture(scope="session")
def engine(model: Path) -> Iterator[Engine]:
    """The engine with the image of `IMAGE`; never skipped, for an untried image is no image."""
    docker, image = os.environ.get("DOCKER", "docker"), os.environ.get("IMAGE")
    if not image:
        pytest.fail("IMAGE names no image: run `make test-image`, which builds one", pytrace=False)
    volumes = {name: f"finetune-job-test-{name}-{uuid.uuid4().hex[:12]}" for name in VOLUMES}
    mounts = (
        *(f"{volume}:/{name}" for name, volume in volumes.items()),
        f"{model}:/model:ro",
        f"{ROOT / 'examples'}:/examples:ro",
    )
    engine = Engine(docker, image, mounts)
    engine.call("image", "inspect", image)
    for volume in volumes.values():
        engine.call("volume", "create", volume)
    yield engine
    engine.call("volume", "rm", *volumes.values())


@pytest.fixture(scope="session")
def demo(engine: Engine) -> Ended:
    """The demo, shortened to three steps, run to its end."""
    return engine.run(env=DEMO)
