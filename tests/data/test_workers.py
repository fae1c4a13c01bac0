from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from job.data.pools.workers import in_order, usable_cores
from job.errors import DataError, InternalError, OutOfResources

ROOT = Path(__file__).parents[2]


# What the workers do: they import it from here.


def squares():
    return lambda number: number * number


def slow_when_even():
    return lambda number: (time.sleep(0.2 if number % 2 == 0 else 0), number)[1]


def killed_at_three():
    return lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == 3 else number


def leaves_at_three():
    return lambda number: os._exit(7) if number == 3 else number


def dies_while_it_answers():
    def work(_):
        pipe = next(file for file in Path("/proc/self/fd").iterdir() if file.is_socket())
        os.write(int(pipe.name), struct.pack("!i", 1000) + b"less than 1000 bytes")
        os.kill(os.getpid(), signal.SIGKILL)

    return work


def refuses(message):
    raise DataError(message, problems=["this", "that"])


def fails():
    return lambda number: 1 // 0


def tells_modules():
    import transformers

    del transformers
    return lambda _: [name for name in ("torch", "transformers") if sys.modules.get(name)]


def works_for_two_seconds(path):
    def work(_):
        Path(path).write_text(str(os.getpid()))
        time.sleep(2)

    return work


def numbers(count, taken=None):
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield f"tag {number}", number


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_with_their_tags(workers):
    assert list(in_order(slow_when_even, numbers(8), workers)) == list(numbers(8))
    assert list(in_order(squares, [], workers)) == []


def test_no_more_is_read_than_two_batches_a_worker():
    taken = []
    results = in_order(squares, numbers(100, taken), 2)
    assert next(results) == ("tag 0", 0)
    assert len(taken) == 4
    results.close()


@pytest.mark.parametrize("setup", [killed_at_three, dies_while_it_answers])
def test_a_worker_that_is_killed_is_an_error(setup):
    with pytest.raises(OutOfResources, match=r"killed by SIGKILL.*memory"):
        list(in_order(setup, numbers(20), 2))


def test_a_worker_that_leaves_is_an_error():
    with pytest.raises(InternalError, match="exit code 7"):
        list(in_order(leaves_at_three, numbers(20), 2))


def test_errors_of_the_job_come_back_as_they_are():
    with pytest.raises(DataError) as caught:
        list(in_order(partial(refuses, "No such thing."), numbers(3), 2))
    assert str(caught.value) == "No such thing.\n  - this\n  - that"


def test_other_errors_are_bugs_by_their_name():
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        list(in_order(fails, numbers(3), 2))


def test_workers_do_without_pytorch():
    ((_, loaded),) = in_order(tells_modules, numbers(1), 2)
    assert loaded == ["transformers"]


def test_a_worker_ends_with_its_parent(tmp_path):
    code = (
        "from functools import partial\n"
        "from tests.data.test_workers import in_order, numbers, works_for_two_seconds\n"
        "if __name__ == '__main__':\n"
        f"    setup = partial(works_for_two_seconds, {str(tmp_path / 'pid')!r})\n"
        "    list(in_order(setup, numbers(1), 2))\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    wait_for((tmp_path / "pid").exists)
    time.sleep(0.1)
    worker = int((tmp_path / "pid").read_text())
    program = Path(f"/proc/{worker}/exe")  # gone with the process, also if nobody reaps it
    assert program.exists()
    parent.kill()
    parent.wait()
    wait_for(lambda: not program.exists())


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that within a minute")


def test_cores_are_limited_by_the_quota_of_the_container(tmp_path):
    own = len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) == min(own, 16)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert usable_cores(tmp_path) == 1
    assert usable_cores(tmp_path / "no cgroups") == min(own, 16)


def test_the_older_kind_of_quota_counts_too(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    own = min(len(os.sched_getaffinity(0)), 16)
    assert usable_cores(tmp_path) == own
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("100000\n")
    assert usable_cores(tmp_path) == 1
