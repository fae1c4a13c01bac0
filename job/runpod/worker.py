"""The serverless worker: RunPod's SDK hands out jobs, each is one `entrypoint.py run`.

The run is a child process, so nothing that training can die of reaches the SDK's loop. What is
posted is small plain JSON; the truth about a run is its receipt at the destination, since the SDK
gives up on posting after three attempts and RunPod keeps results for half an hour.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from job.credentials import SECRETS, read_credentials
from job.errors import BY_CODE, DestinationTaken, InternalError, JobError, OutOfResources
from job.events import Event, clean
from job.redact import Redactor
from job.runpod.child_run import ROOT, Ended, Stop, run
from job.runpod.payload import failure, read_input, seconds_for
from job.runpod.progress import EVERY, Progress, Send

COMMAND = (sys.executable, str(ROOT / "entrypoint.py"), "run")
WAIT = 15.0
# A failed job ends the worker and nothing is posted: the Hub's tests pass on any answer.
LOUD_VARIABLE = "RUNPOD_WORKER_EXITS_ON_FAILURE"
LEAST_DISK = 10 * 2**30  # bytes: below this not even a model of 1B parameters is merged


class Worker:
    """Does jobs one after the other.

    Args:
        environ: the endpoint's.
        command: does the job that its environment describes.
        sender: makes the function that sends a job's progress.
        wait: seconds between two looks at a run that another process is working on.
        every: seconds between two updates of the progress.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        sender: Callable[[dict[str, Any]], Send],
        command: Sequence[str] = COMMAND,
        wait: float = WAIT,
        every: float = EVERY,
    ) -> None:
        self._environ, self._sender, self._command = environ, sender, command
        self._wait, self._every = wait, every
        names = (*SECRETS, "RUNPOD_AI_API_KEY")
        secrets = [environ[name] for name in names if environ.get(name)]
        self._redact = Redactor([*secrets, *read_credentials(environ).values()])

    async def handle(self, job: dict[str, Any]) -> dict[str, Any]:
        """The SDK's handler: the result, or `{"error": …}` with the failure as JSON text."""
        try:
            result = await self._do(job)
        except JobError as error:
            result = {"error": failure(error, "spec" if error.exit_code == 78 else "start")}
        except Exception as error:  # the SDK would post the traceback
            sys.stderr.write(self._redact(traceback.format_exc()))
            told = InternalError(f"{type(error).__name__}, see the worker's log")
            result = {"error": failure(told, "start")}
        plain = clean(result, self._redact)
        if "error" in plain and self._environ.get(LOUD_VARIABLE):
            sys.stderr.write(f"{plain['error']}\n")
            sys.stderr.flush()
            _end_pings()
            os._exit(int(plain["error"]["exit_code"]))
        if "error" in plain:
            return {"error": json.dumps(plain["error"], allow_nan=False)}
        return json.loads(json.dumps(plain, allow_nan=False))  # type: ignore[no-any-return]

    async def _do(self, job: dict[str, Any]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        spec, env = read_input(job.get("input"), self._environ)
        deadline = began + seconds_for(spec, self._environ)
        told: dict[str, Any] = {}
        stop = Stop()
        async with Progress(self._sender(job), self._every) as progress:

            def on_event(event: Event) -> None:
                if event.get("event") == "trained":
                    told["training"] = _scalars(event["training"])
                elif "event" in event:
                    progress.handle(event)

            with stop.handled():
                while True:
                    ended = await run(
                        self._command,
                        env,
                        on_event,
                        stop,
                        seconds=deadline - loop.time(),
                        grace=spec.stop_grace,
                    )
                    if not _is_busy(ended) or loop.time() + self._wait > deadline:
                        break
                    await asyncio.sleep(self._wait)
                    if stop.came:
                        break
        if ended.code != 0:
            return {"error": _failed(ended)}
        return {
            **{"status": "done", "run": spec.run_name, "spec_hash": spec.spec_hash},
            **{"receipt": ended.line["receipt"], "message": ended.line["message"]},
            **{"seconds": round(loop.time() - began, 1), **told},
        }


def _is_busy(ended: Ended) -> bool:
    """Another process works on this very run, as when RunPod hands a job out twice."""
    return ended.code == DestinationTaken.exit_code and bool(ended.line.get("retryable"))


def _failed(ended: Ended) -> dict[str, Any]:
    if not ended.line:
        return failure(ended.error(), "run")
    kind = BY_CODE.get(ended.code, InternalError)
    keys = ("exit_code", "phase", "retryable", "message")
    return {"code": kind.name, **{key: ended.line[key] for key in keys}}


def _scalars(training: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in training.items() if v is None or isinstance(v, int | float | str)}


def _end_pings() -> None:
    """End the SDK's own process, which would go on to say that the worker lives: what ends by
    os._exit, as entrypoint.py does, does not end it."""
    for process in multiprocessing.active_children():
        process.terminate()
        process.join()


def fitness_checks(environ: Mapping[str, str]) -> list[Callable[[], None]]:
    """What a worker must have before it takes a job; each raises when it is not there."""

    def gpu_and_driver() -> None:
        from job.plan import require_supported
        from job.preflight import find_gpu

        require_supported(find_gpu(environ))

    def disk() -> None:
        from job import space

        folder = Path(environ.get("JOB_WORK_DIR") or "/work")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutOfResources(f"JOB_WORK_DIR: {folder} cannot be made: {error}") from None
        if not os.access(folder, os.W_OK):
            raise OutOfResources(f"JOB_WORK_DIR: {folder} cannot be written")
        space.require([space.Need("a job", LEAST_DISK, folder)])

    on_cpu = environ.get("JOB_DEVICE", "").strip() == "cpu"
    return [disk] if on_cpu else [gpu_and_driver, disk]


def serve(
    environ: Mapping[str, str],
    command: Sequence[str] = COMMAND,
    wait: float = WAIT,
    every: float = EVERY,
) -> None:
    """Take jobs until SIGTERM.

    Raises:
        SpecError: the endpoint's credentials cannot be used.
    """
    # The SDK's default, DEBUG, logs inputs, results and addresses; it is read at its import.
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    import runpod
    from runpod.http_client import AsyncClientSession
    from runpod.serverless.modules.rp_http import send_result

    def sender(job: dict[str, Any]) -> Send:
        async def send(state: dict[str, Any]) -> None:
            if "RUNPOD_WEBHOOK_POST_OUTPUT" not in environ:
                return  # `serve --test_input`: nobody is told
            async with AsyncClientSession() as session:
                await send_result(session, {"status": "IN_PROGRESS", "output": state}, job)

        return send

    for check in fitness_checks(environ):
        runpod.serverless.register_fitness_check(check)
    worker = Worker(environ, sender, command, wait, every)
    try:
        runpod.serverless.start({"handler": worker.handle})
    finally:
        _end_pings()
