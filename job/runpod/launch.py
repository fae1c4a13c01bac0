"""`launch`: a pod on RunPod that does this job, followed to its end if asked."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from job.credentials import SECRETS, Credentials
from job.errors import (
    AccessRefused,
    DestinationTaken,
    JobError,
    Stopped,
    Unavailable,
    UsageError,
)
from job.runpod.api import PodApi
from job.runpod.catalogue import describe_model, disk_estimate, offers
from job.runpod.ending import api_base
from job.runpod.follow import POLL_SECONDS, Follower, Line, line_of
from job.runpod.pod import limit_hours
from job.runpod.request import MIN_CUDA, PASSED, Wanted, disk_gb, masked, pod_body
from job.spec import JobSpec
from job.store import Destination, finished_receipt, misfits, open_destination

Read = Callable[[Mapping[str, str]], tuple[JobSpec, Credentials]]
Say = Callable[[str], None]
SPARE_SECONDS = 900  # beyond the pod's own limit, for finding a host and pulling the image


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"launch: {message}\n{self.format_usage()}")


def _parser() -> _Parser:
    parser = _Parser("entrypoint.py launch", description="Start a RunPod pod that does this job.")
    add = parser.add_argument
    add("--gpu", help='RunPod\'s id of a card, e.g. "NVIDIA GeForce RTX 5090"')
    add("--image", help="this image, as RunPod can pull it, with its tag")
    add("--cloud", choices=("secure", "community"), default="secure")
    add("--volume", default="", metavar="ID", help="a network volume, mounted at /workspace")
    add("--disk", type=int, metavar="GB", help="container disk; default: the job's estimate")
    add("--max-hours", metavar="H", help="the same as JOB_MAX_HOURS")
    add(
        "--secret",
        action="append",
        default=[],
        metavar="NAME=SECRET",
        help="take this variable from a RunPod secret instead of from here",
    )
    add("--dry-run", action="store_true", help="print the request, secrets masked; send nothing")
    add("--follow", action="store_true", help="follow the job; end with its exit code")
    add("--list-gpus", action="store_true", help="the cards that fit this job, cheapest first")
    return parser


def launch(arguments: list[str], environ: Mapping[str, str], read: Read, say: Say) -> Line:
    """Do what the arguments ask for; the last line of stdout.

    Args:
        read: makes spec and credentials of an environment.
        say: takes lines for people.

    Raises:
        UsageError: wrong arguments. JobError: what RunPod, the spec or the model stand in the way.
    """
    if "--help" in arguments or "-h" in arguments:
        say(_parser().format_help())
        return line_of("ok", 0, "launch", False, "help", None)
    options = _parser().parse_args(arguments)
    if options.max_hours:
        environ = {**environ, "JOB_MAX_HOURS": options.max_hours}
    spec, credentials = read(environ)
    cloud = options.cloud.upper()
    if options.list_gpus:
        return _list(spec, credentials, environ, cloud, say)
    if not options.gpu or not options.image:
        raise UsageError("launch: --gpu and --image are needed (--list-gpus shows the cards)")
    references = _references(options.secret)
    size = options.disk
    if size is None:  # on a volume the work is done there, and the model may be there alone
        estimate = 0 if options.volume else disk_estimate(spec, describe_model(spec, credentials))
        size = disk_gb(estimate)
    wanted = Wanted(options.image, options.gpu, cloud, options.volume, references, size)
    values = _values(credentials, environ, references)
    body = pod_body(spec, wanted, values)
    if options.dry_run:
        return _show(body, values, environ)
    destinations = [
        open_destination(ref, spec.run_name, spec.save, credentials, spec.hub_private)
        for ref in spec.output
        if ref.scheme != "file"  # on the volume, which is not here
    ]
    if destinations and _is_done(spec, destinations):
        uris = [f"{d.uri}/receipt.json" for d in destinations]
        receipt = uris[0] if len(uris) == 1 else uris
        return line_of("done", 0, "launch", False, "already done, no pod was started", receipt)
    api = PodApi(api_base(environ), _key(credentials))
    with _signals_raise():
        pod = _create(api, body, say)
        if not options.follow:
            message = f"pod {pod} is starting; it ends itself (JOB_ON_FINISH={spec.on_finish})"
            return line_of("ok", 0, "launch", False, message, None)
        follower = Follower(api, pod, spec, destinations, say, POLL_SECONDS)
        return _follow(api, pod, spec, follower, say)


def _is_done(spec: JobSpec, destinations: list[Destination]) -> bool:
    """Whether all is there and whole; False where this machine may not ask.

    Raises:
        DestinationTaken: the pod would find another run there.
    """
    try:
        receipts = [finished_receipt(one, spec.spec_hash) for one in destinations]
        found = zip(destinations, receipts, strict=True)
        return all(r is not None and not misfits(one, r) for one, r in found)
    except DestinationTaken:
        raise
    except JobError:  # the credentials may be RunPod secrets
        return False


def _create(api: PodApi, body: dict[str, Any], say: Say) -> str:
    """Make the pod. When it is not known whether there is one, there is none afterwards."""
    try:
        pod = api.create(body)
    except (Unavailable, KeyboardInterrupt) as error:
        try:
            for lost in api.named(body["name"]):
                api.remove(lost)
                say(f"pod {lost} was removed")
        except JobError:
            say(f"it is not known whether a pod was made: look for {body['name']} in the console")
        if isinstance(error, KeyboardInterrupt):
            raise Stopped("Interrupted while the pod was being made.") from None
        raise
    say(f"pod {pod} ({body['name']}) on {body['gpu']['id']}")
    return pod


def _follow(api: PodApi, pod: str, spec: JobSpec, follower: Follower, say: Say) -> Line:
    """The job's last line. The pod never outlives an interrupt or its limit."""
    hours = limit_hours(spec)
    try:
        line = follower.follow(time.monotonic() + hours * 3600 + SPARE_SECONDS)
        if line:
            follower.see_it_end(done=line["exit_code"] == 0)
            return line
    except BaseException as error:
        api.remove(pod)
        say(f"pod {pod} was removed")
        if isinstance(error, KeyboardInterrupt):
            raise Stopped(f"Interrupted; pod {pod} was removed.") from None
        raise
    api.remove(pod)
    raise Stopped(f"The job's {hours:g} hours are over; pod {pod} was removed.")


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM interrupts as Ctrl-C does, so that what was started is removed."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _list(
    spec: JobSpec, credentials: Credentials, environ: Mapping[str, str], cloud: str, say: Say
) -> Line:
    api = PodApi(api_base(environ), _key(credentials))
    model = describe_model(spec, credentials)
    found = offers(spec, model, api.gpus(cloud), cloud)
    for offer in found:
        say(offer.line())
    message = f"{len(found)} kinds of card fit this job in the {cloud.lower()} cloud"
    return line_of("ok", 0, "launch", False, message, None)


def _show(body: dict[str, Any], values: Mapping[str, str], environ: Mapping[str, str]) -> Line:
    request = {
        **{"method": "POST", "url": f"{api_base(environ)}/v2/pods"},
        "headers": {"Authorization": "Bearer ********", "Content-Type": "application/json"},
        "body": masked(body, values),
    }
    sys.stdout.write(json.dumps(request, indent=2, ensure_ascii=False) + "\n")
    message = f"nothing was sent; the pod needs a driver for CUDA {MIN_CUDA}"
    return line_of("ok", 0, "launch", False, message, None)


def _key(credentials: Credentials) -> str:
    if not credentials.runpod_api_key:
        raise AccessRefused("RUNPOD_API_KEY is not set: make a key in RunPod's settings.")
    return credentials.runpod_api_key


def _references(given: list[str]) -> dict[str, str]:
    """NAME=SECRET, each name one that a job knows."""
    found = dict(text.partition("=")[::2] for text in given)
    for name, secret in found.items():
        if name not in SECRETS or name not in PASSED or not re.fullmatch(r"[\w-]+", secret):
            raise UsageError(
                f"launch: --secret {name}=…: allowed are NAME=SECRET with one of "
                f"{', '.join(n for n in PASSED if n in SECRETS)} and a RunPod secret's name"
            )
    return found


def _values(
    credentials: Credentials, environ: Mapping[str, str], references: Mapping[str, str]
) -> dict[str, str]:
    """The variables that the pod gets beside the spec."""
    read = {
        "HF_TOKEN": credentials.hf_token,
        "WANDB_API_KEY": credentials.wandb_api_key,
        "JOB_WEBHOOK_SECRET": credentials.webhook_secret,
        "RUNPOD_TERMINATE_API_KEY": credentials.runpod_terminate_api_key,
    }
    said = {name: environ.get(name, "").strip() for name in PASSED if name not in SECRETS}
    found = {**said, **credentials.aws, **read, **credentials.tracking}
    return {k: v for k in PASSED if (v := found.get(k)) and k not in references}
