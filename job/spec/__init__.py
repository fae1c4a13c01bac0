"""The job spec: environment → one frozen, validated object. Pure: it reads no environment itself.

values.py    how one scalar or list is read, strictly
uris.py      models, dataset sources and destinations
model.py     JobSpec: every key with its type, range, default and meaning
rules.py     keys that contradict each other, and keys that do nothing yet
carriers.py  JOB_SPEC: JSON, YAML, base64, a path or a URI
reader.py    all of it together, every problem at once
docs.py      JSON Schema and the README's parts
__main__.py  `make docs` writes those into the README
"""

from job.spec.docs import json_schema, table
from job.spec.model import JobSpec
from job.spec.reader import read_spec
from job.spec.sources import Source
from job.spec.uris import DestinationRef, ModelRef

__all__ = [
    "DestinationRef",
    "JobSpec",
    "ModelRef",
    "Source",
    "json_schema",
    "read_spec",
    "table",
]
