"""The commands. The only module that is handed the environment by the entry point.

Whatever happens, the last line of stdout is one JSON object that tells how it ended, and the exit
code says the same; everything for people goes to stderr.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from job.errors import InternalError, JobError, OutOfResources, SpecError, UsageError
from job.runpod import is_pod, is_worker

if TYPE_CHECKING:
    from job.credentials import Credentials
    from job.runpod.pod import PodLife
    from job.spec import JobSpec
    from job.supervisor import Command, Outcome

USAGE = """usage: python entrypoint.py [COMMAND]

  run           do the job that the JOB_* variables describe (the default)
  merge         merge the saved adapter anew, verify and publish; trains nothing
  publish       publish what is finished; trains and merges nothing
  check         try everything that could fail, show the data and the plan, train nothing;
                with --quote, what is said about bad rows quotes them
  verify URI    check a receipt against what is stored: s3://… file:///… hf://…
  schema        print the JSON Schema of the spec
  serve         be a RunPod serverless worker (the default where RunPod hands out jobs)
  launch        start a RunPod pod with this spec; `launch --help` tells its options
"""
Environ = Mapping[str, str]
IN_A_POD = ("run", "merge", "publish")  # commands whose end is a pod's end


def main(argv: list[str], environ: Environ) -> int:
    """Run one command and return the process's exit code (see job/errors.py)."""
    command, *arguments = argv or [_default(environ)]
    if command in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if command in IN_A_POD and is_pod(environ):
        return _in_a_pod(command, arguments, environ)
    return _do(lambda: _command(command)(arguments, environ), environ)


def _default(environ: Environ) -> str:
    return "serve" if is_worker(environ) else "run"


def _in_a_pod(command: str, arguments: list[str], environ: Environ) -> int:
    """The job, and then the pod's end. A pod that cannot be ended is not started with."""
    lives: list[PodLife] = []

    def work() -> int:
        from job.runpod.pod import PodLife

        lives.append(PodLife(environ, lambda line: _say(line, environ)))
        return _job(cast("Command", command), arguments, environ, lives[0])

    code = _do(work, environ)
    return lives[0].finish(code) if lives else code


def _do(work: Callable[[], int], environ: Environ) -> int:
    try:
        return work()
    except JobError as error:
        return _end(_failure(error, environ), environ)
    except Exception as error:
        _say(traceback.format_exc(), environ)
        told: JobError = InternalError(f"{type(error).__name__}: {error}")
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            told = OutOfResources(f"The disk is full: {error.filename or error.strerror}")
        return _end(_failure(told, environ), environ)


def _command(name: str) -> Callable[[list[str], Environ], int]:
    commands = {
        **{"run": run, "merge": merge, "publish": publish},
        **{"check": check, "verify": verify, "schema": schema},
        **{"serve": serve, "launch": launch},
    }
    if name not in commands:
        raise UsageError(f"Unknown command {name!r}.\n{USAGE}")
    return commands[name]


def run(arguments: list[str], environ: Environ) -> int:
    """`run`: the whole job, or what an earlier start has left of it."""
    return _job("run", arguments, environ)


def merge(arguments: list[str], environ: Environ) -> int:
    """`merge`: from a saved adapter on; needs no GPU."""
    return _job("merge", arguments, environ)


def publish(arguments: list[str], environ: Environ) -> int:
    """`publish`: from verified results on; needs no GPU and loads no torch."""
    return _job("publish", arguments, environ)


def _job(
    command: Command, arguments: list[str], environ: Environ, pod: PodLife | None = None
) -> int:
    message = f"{command} takes no arguments; the job is described by JOB_* variables."
    _require(not arguments, message)
    spec, credentials = _read(environ)
    if pod:
        pod.begin(spec, credentials)
    from job.events import EventLog
    from job.redact import Redactor
    from job.report import fit, open_reporter, summary
    from job.supervisor import run_job
    from job.workplace import make_run_folder

    folder = make_run_folder(spec)
    reporter = open_reporter(spec.log_format, sys.stderr)
    redact = Redactor(credentials.values())
    credentials = credentials.heard_by(redact.learn)
    log = EventLog(folder, redact, reporter.handle)
    try:
        outcome = run_job(spec, credentials, environ, log, command)
    finally:
        reporter.close()
        log.close()
    if outcome.result and spec.log_format != "json":
        text = redact(summary(outcome.result, outcome.receipts))
        columns = shutil.get_terminal_size().columns
        print(fit(text, columns) if sys.stderr.isatty() else text, file=sys.stderr)
    return _end(_last_line(outcome), environ)


def check(arguments: list[str], environ: Environ) -> int:
    """`check`: preflight, data, plan; trains nothing. On the Hub it makes the repositories."""
    _require(
        arguments in ([], ["--quote"]),
        "check takes no arguments but --quote; the job is described by JOB_* variables.",
    )
    spec, credentials = _read(environ)
    from job.check import Screen, check_job

    is_terminal = sys.stderr.isatty()
    screen = Screen(
        say=lambda line: _say(line, environ),
        width=shutil.get_terminal_size().columns if is_terminal else 80,
        colour=is_terminal and not environ.get("NO_COLOR"),  # https://no-color.org
        quote=bool(arguments),
    )
    check_job(spec, credentials, environ, screen)
    line = {"status": "ok", "exit_code": 0, "phase": "check", "retryable": False}
    return _end({**line, "message": "the job can start", "receipt": None}, environ)


def verify(arguments: list[str], environ: Environ) -> int:
    """`verify URI`: every file that a receipt lists, read back and hashed."""
    _require(len(arguments) == 1, "verify takes one argument: the URI of a run or its receipt.")
    from job.credentials import read_credentials
    from job.errors import UploadFailed
    from job.receipt import verify_uri

    receipt, problems = verify_uri(arguments[0], read_credentials(environ))
    if problems:
        raise UploadFailed(
            f"{arguments[0]} does not hold what its receipt lists.", problems=problems
        )
    size = sum(file["size"] for file in receipt["files"])
    message = f"{len(receipt['files'])} files, {size:,} bytes: all as the receipt says"
    line = {"status": "ok", "exit_code": 0, "phase": "verify", "retryable": False}
    return _end({**line, "message": message, "receipt": arguments[0]}, environ)


def schema(arguments: list[str], environ: Environ) -> int:
    """`schema`: the JSON Schema of the spec, and nothing else, on stdout."""
    _require(not arguments, "schema takes no arguments.")
    from job.spec import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0


def serve(arguments: list[str], environ: Environ) -> int:
    """`serve`: take jobs from RunPod until told to stop; the arguments are the SDK's."""
    from job.runpod.worker import serve as take_jobs

    take_jobs(environ)
    return 0


def launch(arguments: list[str], environ: Environ) -> int:
    """`launch`: a pod on RunPod that does this job."""
    from job.runpod.launch import launch as start_pod

    line = start_pod(arguments, environ, _read, lambda text: _say(text, environ))
    return _end(line, environ)


def _read(environ: Environ) -> tuple[JobSpec, Credentials]:
    from job.credentials import read_credentials
    from job.spec import read_spec

    def fetch(uri: str) -> bytes:
        from job.sources.text import fetch_text

        return fetch_text(uri, read_credentials(environ))

    return read_spec(environ, fetch), read_credentials(environ)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


def _failure(error: JobError, environ: Environ) -> dict[str, Any]:
    _say(f"{type(error).__name__}: {error}", environ)
    return {
        "status": "failed",
        "exit_code": error.exit_code,
        "phase": "spec" if error.exit_code == 78 else "start",
        "retryable": error.retryable,
        "message": str(error),
        "receipt": None,
    }


def _last_line(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "phase": outcome.phase,
        "retryable": outcome.retryable,
        "message": outcome.message,
        "receipt": outcome.receipts[0] if len(outcome.receipts) == 1 else outcome.receipts or None,
    }


def _end(line: dict[str, Any], environ: Environ) -> int:
    """Print the last line of stdout, free of secrets, and return its exit code."""
    from job.events import clean

    print(json.dumps(clean(line, _redactor(environ)), ensure_ascii=False), flush=True)
    return int(line["exit_code"])


def _say(text: str, environ: Environ) -> None:
    print(_redactor(environ)(text), file=sys.stderr)


def _redactor(environ: Environ) -> Callable[[str], str]:
    from job.credentials import SECRETS, read_credentials
    from job.redact import Redactor

    secrets = [environ[name] for name in SECRETS if environ.get(name)]
    with contextlib.suppress(SpecError):  # which is what is being reported then
        secrets += read_credentials(environ).values()
    return Redactor(secrets)
