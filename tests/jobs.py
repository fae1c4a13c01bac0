"""Small jobs for the tests of the command line: a valid tiny model, rows, and the real process."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

ROOT = Path(__file__).parent.parent
LINE_KEYS = ["status", "exit_code", "phase", "retryable", "message", "receipt"]
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PATIENCE = 60  # seconds for what takes one or two; the machine may be busy

# Processes that the tests kill by SIGSEGV shall leave no core file.
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def make_model(folder: Path, **config: Any) -> Path:
    """A folder that is complete and valid as a model, though nothing could be learnt by it."""
    folder.mkdir(parents=True)
    described = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 8,
        **{"intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"vocab_size": 258, "torch_dtype": "float32"},
    }
    (folder / "config.json").write_text(json.dumps(described | config))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = {letter: index for index, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    (folder / "chat_template.jinja").write_text(CHATML)
    weights = {"model.embed_tokens.weight": np.ones((258, 8), dtype=np.float32)}
    save_file(weights, folder / "model.safetensors")
    return folder


def make_rows(path: Path, count: int = 20) -> Path:
    """A JSONL file of conversations."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(count)))
    return path


def job(folder: Path, **changes: str) -> dict[str, str]:
    """The environment of a valid job on the CPU whose parts all lie in `folder`.

    Args:
        changes: variables by their full name, which win; an empty one is unset.
    """
    if not (folder / "model").exists():
        make_model(folder / "model")
        make_rows(folder / "rows.jsonl")
    spec = {
        "JOB_MODEL": f"{folder}/model",
        "JOB_DATASET": f"{folder}/rows.jsonl",
        "JOB_OUTPUT": f"file://{folder}/out",
        "JOB_WORK_DIR": f"{folder}/work",
        "JOB_DEVICE": "cpu",
        "JOB_NAME": "run-a",
    }
    return spec | changes


@dataclass
class Ended:
    """How a process of the entry point ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def line(self) -> dict[str, Any]:
        """The last line of stdout."""
        line: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return line

    @property
    def text(self) -> str:
        """All it said."""
        return self.stdout + self.stderr


def start(
    *arguments: str, environ: Mapping[str, str], options: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """`python entrypoint.py ARGUMENTS` with this environment and nothing else but PATH."""
    return subprocess.Popen(
        [sys.executable, *options, "entrypoint.py", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(process: subprocess.Popen[str]) -> Ended:
    """Wait for its end."""
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return Ended(process.returncode, stdout, stderr)


def entrypoint(*arguments: str, environ: Mapping[str, str], options: tuple[str, ...] = ()) -> Ended:
    """Run the entry point to its end, which must tell of itself in the promised form."""
    ended = wait(start(*arguments, environ=environ, options=options))
    assert list(ended.line) == LINE_KEYS, ended.text
    assert ended.line["exit_code"] == ended.code
    return ended


@contextmanager
def running(environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`entrypoint.py run` on its way; never left behind."""
    process = start("run", environ=environ)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()


def until(found: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """What `found` gives once it is true."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")


def trainer_of(supervisor: subprocess.Popen[str]) -> int:
    """The trainer's process id, as soon as there is one."""
    return int(until(lambda: _child_of(supervisor), "the trainer"))


def _child_of(supervisor: subprocess.Popen[str]) -> int | None:
    assert supervisor.poll() is None, supervisor.communicate()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            command = (process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if int(parent) == supervisor.pid and b"job.train" in command:
            return int(process.name)
    return None


def is_alive(pid: int) -> bool:
    """Whether this process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def events(folder: Path, run: str = "run-a") -> list[dict[str, Any]]:
    """The events of a run so far, without a line that is being written or was cut off by a kill."""
    path = folder / "work" / run / "events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if _is_json(line)]


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def texts(*folders: Path) -> str:
    """All text of all files below the folders, for a search."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)
