"""A key that has no effect yet is validated, then refused: no setting is ever ignored."""

from __future__ import annotations

import pytest

from job.spec import read_spec
from job.spec.rules import NOT_BUILT
from tests.test_spec_refused import CANARY, GOOD, refusal

NOT_YET = {
    "trust_remote_code": "org/name@" + "a" * 40,
}


@pytest.mark.parametrize(("key", "value"), NOT_YET.items())
def test_a_key_without_an_effect_is_refused_and_never_ignored(key, value):
    variable = f"JOB_{key.upper()}"
    (problem,) = refusal(GOOD | {variable: value}).problems
    assert problem.startswith(f"{variable}: not built yet (")
    assert "leave it unset" in problem


def test_a_webhook_secret_without_webhooks_is_refused():
    (problem,) = refusal(GOOD | {"JOB_WEBHOOK_SECRET": CANARY}).problems
    assert problem.startswith("JOB_WEBHOOK_SECRET: signs nothing without JOB_WEBHOOK_URL")
    signed = {"JOB_WEBHOOK_SECRET": CANARY, "JOB_WEBHOOK_URL": "https://host.example/hook"}
    assert read_spec(GOOD | signed).webhook_url == "https://host.example/hook"


def test_what_already_holds_may_be_said_out_loud():
    said = {"JOB_PACKING": "false"}
    said |= {"JOB_REPORT_TO": "none"}
    assert read_spec(GOOD | said).packing == "false"


def test_every_key_without_an_effect_is_in_the_table_above():
    assert set(NOT_BUILT) == set(NOT_YET)
