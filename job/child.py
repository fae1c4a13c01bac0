"""The supervisor's end of a child process: start it, send the request, relay events, judge its end.

The child (`python -m job.train`, `python -m job.train.verify`) gets an allow-list of the
environment without credentials. Its stdout and stderr go to `trainer.log`; its events come over a
pipe. A child that dies by a signal is a reported failure like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from job.errors import BY_CODE, InternalError, JobError, OutOfResources, Stopped
from job.events import Event

# What a trainer may see of the environment; everything else, credentials above all, stays here.
ALLOWED = (
    *("PATH", "LANG", "LC_ALL", "TZ", "USER", "LD_LIBRARY_PATH"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),  # not NVIDIA_API_KEY
)
ALLOWED_PREFIXES = (
    *("CUDA_", "NCCL_", "TORCH", "TRITON_", "PYTORCH_", "PYTHON", "UNSLOTH_"),
    *("OMP_", "MKL_", "OPENBLAS_"),
)

OWN_CGROUP = Path("/proc/self/cgroup")

# For device=cpu, read by Unsloth 2026.10.7 when it is imported; job/train/cpu.py has the rest.
CPU_ENVIRONMENT = {
    "UNSLOTH_ALLOW_CPU": "1",  # else: NotImplementedError, "cannot find any torch accelerator"
    "UNSLOTH_COMPILE_DISABLE": "1",  # torch.compile for CPUs needs a C++ compiler
    "TORCHDYNAMO_DISABLE": "1",  # the fused loss compiles all the same (cross_entropy_loss.py:574)
    "CUDA_VISIBLE_DEVICES": "",  # device=cpu means cpu, also where a GPU is at hand
}


def child_environment(
    environ: Mapping[str, str], scratch: Path, *, on_cpu: bool, kernels: Path | None = None
) -> dict[str, str]:
    """The environment of a child: allowed variables, caches under `scratch`, everything offline.

    Args:
        kernels: where compiled kernels are kept for every run; under `scratch` if None.
    """
    env = {
        name: value
        for name, value in environ.items()
        if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)
    }
    cache = scratch / "cache"
    env |= {
        "HOME": str(scratch / "home"),
        # The merge of an MXFP4 base maps gigabytes in temporary files: not in a tmpfs on /tmp.
        "TMPDIR": str(scratch / "tmp"),
        "HF_HOME": str(cache / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",  # else a download at load (unsloth _utils.py:4422)
        "UNSLOTH_AUTO_INSTALL": "0",  # no apt, no llama.cpp build at run time
        "UNSLOTH_DISABLE_LLM_COMPRESSOR_AUTOINSTALL": "1",
        "UNSLOTH_DISABLE_AUTO_PADDING_FREE": "1",  # our collator pads; one layout everywhere
        "UNSLOTH_COMPILE_LOCATION": str(cache / "unsloth"),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    # Both go by source, versions and card, and several processes may write them at a time.
    env.setdefault("TRITON_CACHE_DIR", str((kernels or cache) / "triton"))
    env.setdefault("TORCHINDUCTOR_CACHE_DIR", str((kernels or cache) / "inductor"))
    env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # nvidia-smi's, by which one was chosen
    env.setdefault("USER", "job")  # torch asks for a user name; the uid may have none
    if on_cpu:
        env |= CPU_ENVIRONMENT
    for folder in ("home", "cache", "tmp"):
        (scratch / folder).mkdir(parents=True, exist_ok=True)
    return env


class Child:
    """One running child process.

    Args:
        module: what to run, as in `python -m`.
        on_event: called for each event, from a thread of its own.
    """

    def __init__(
        self, module: str, env: Mapping[str, str], log: Path, on_event: Callable[[Event], None]
    ) -> None:
        self.module = module
        self._kills_before = kernel_kills()
        self.failure: Event | None = None
        self.stopped = False
        self._on_event = on_event
        self._listener_failed: Exception | None = None
        read_end, write_end = os.pipe()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=Path(__file__).parent.parent,
                env={**env, "JOB_EVENTS_FD": str(write_end)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[write_end],
                start_new_session=True,  # a Ctrl-C reaches the supervisor, which passes it on
            )
        os.close(write_end)
        self._reader = threading.Thread(target=self._relay, args=(read_end,), daemon=True)
        self._reader.start()

    def run(self, request: dict[str, Any]) -> None:
        """Send the request and wait for the end.

        Raises:
            JobError: what the child said, or what its death means.
            Exception: what `on_event` raised.
        """
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it died already; the exit code below tells why
        code = self._process.wait()
        self._end_group()
        self._reader.join()
        if self._listener_failed is not None:
            raise self._listener_failed
        self._raise_for(code)

    def require_alive(self) -> None:
        """Raises what `run` would, of a child that died before it got its request."""
        code = self._process.poll()
        if code:
            self._reader.join()
            self._raise_for(code)

    def stop(self) -> None:
        """Ask it to stop at the next step; may be called again, and from a signal handler."""
        self.stopped = True
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """End it now, with everything it started; waits for nothing, for a signal handler."""
        if self._process.poll() is None:
            self._end_group()

    def kill(self) -> None:
        """End it now, with everything it started, and wait until it is gone."""
        self.end()
        self._process.wait()
        self._reader.join(5)  # so that no event comes after this

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _end_group(self) -> None:
        """Kill the child and what it forked: a worker left over would hold the pipe open."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _relay(self, fd: int) -> None:
        with os.fdopen(fd, encoding="utf-8") as pipe:
            try:
                for line in pipe:
                    if line.endswith("\n"):  # else it died in the middle of the line
                        self._take(json.loads(line))
            except Exception as error:  # raised again in `run`; the child ends at its next event
                self._listener_failed = error

    def _take(self, event: Event) -> None:
        if event["event"] == "failed":
            self.failure = event
        else:
            self._on_event(event)

    def _raise_for(self, code: int) -> None:
        if code == 0:
            return
        if self.failure is not None:
            error = BY_CODE.get(self.failure["exit_code"], InternalError)
            raise error(self.failure["message"], problems=self.failure["problems"])
        now = kernel_kills()
        by_kernel = None if now is None or self._kills_before is None else now > self._kills_before
        raise death(self.module, code, stopped=self.stopped, by_kernel=by_kernel)


def kernel_kills(root: Path = Path("/sys/fs/cgroup"), own: Path = OWN_CGROUP) -> int | None:
    """How many processes of this container the kernel has killed for memory; None if untold.

    Source: `oom_kill` in cgroup v2's `memory.events` (the kernel's admin-guide/cgroup-v2). Version
    1, and a process in the root cgroup, have no such file.
    """
    try:
        groups = own.read_text(encoding="utf-8").splitlines()
        group = next(line.removeprefix("0::/") for line in groups if line.startswith("0::"))
        events = (root / group / "memory.events").read_text(encoding="utf-8")
    except (OSError, StopIteration):
        return None
    return int(dict(line.split() for line in events.splitlines())["oom_kill"])


def death(module: str, code: int, *, stopped: bool, by_kernel: bool | None = None) -> JobError:
    """The error for a child that ended without a word: by a signal, or by an exit of a library.

    Args:
        by_kernel: whether the kernel killed something for memory meanwhile; None if untold.
    """
    if code >= 0:
        return InternalError(f"{module} ended with exit code {code}; see trainer.log.")
    name = signal.Signals(-code).name
    if stopped:
        return Stopped(f"Stopped by a signal ({module} ended by {name}); nothing was published.")
    if -code == signal.SIGKILL:
        advice = "Give the container more memory, or lower JOB_MICRO_BATCH_SIZE."
        if by_kernel:
            return OutOfResources(f"{module} was killed by the kernel: memory ran out. {advice}")
        if by_kernel is None:
            return OutOfResources(
                f"{module} was killed by SIGKILL, as the kernel does when memory runs out. {advice}"
            )
        return OutOfResources(
            f"{module} was killed by SIGKILL from outside; the kernel counts no kill for memory "
            "in this container. Start the same spec again."
        )
    return InternalError(f"{module} was killed by {name}; see trainer.log.")
