"""Numbers and names as a person reads them. Everything that is shown passes through here."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, TypeGuard

BARS = "▁▂▃▄▅▆▇█"
# Control characters move a terminal's cursor or hide text; model output and file names may
# hold them. Tabs and line ends are dealt with by whoever lays out the text.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
STOPS = {
    "eos": "ended by itself",
    "stop": "ended by itself",
    "length": "cut at the token limit",
    "time": "cut at the time limit",
}


def finite(value: Any) -> TypeGuard[float]:
    """Whether `value` is a number that can be drawn and compared."""
    return isinstance(value, int | float) and math.isfinite(value)


def loss(value: Any) -> str:
    """A loss (nats per token): "2.310"; "not finite" for nan and inf, "–" for none."""
    if value is None:
        return "–"
    return f"{value:.3f}" if finite(value) else "not finite"


def dollars(value: float) -> str:
    """US dollars to the cent; less than one to a hundredth of a cent: "$0.0421"."""
    return f"${value:,.2f}" if value >= 1 else f"${value:.4f}"


def change(before: Any, after: Any) -> str:
    """Two losses and an arrow, held together on one line: "2.953 → 2.104"."""
    return f"{loss(before)}\u00a0→\u00a0{loss(after)}"


def perplexity(value: Any) -> str:
    """e to the power of a loss: "19.2"."""
    return f"{math.exp(value):.3g}" if finite(value) and value < 50 else "–"


def count(value: float) -> str:
    """A whole number with thousands apart: "12,345"."""
    return f"{value:,.0f}"


def share(part: float, whole: float) -> str:
    """A share in percent: "12 %"; one decimal under ten, so that little is not called nothing."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f} %" if percent == round(percent) or percent >= 10 else f"{percent:.1f} %"


def size(number: float) -> str:
    """Bytes in decimal units, as disks and stores count them: "98.4 MB"."""
    if number < 1000:
        return f"{number:.0f} B"
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.2f} TB"


def duration(seconds: float) -> str:
    """Seconds as "4.2s", "48s", "3m10s", "2h05m" or "3d04h"."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def number(value: Any) -> str:
    """Any value of a settings or verification table."""
    if value is None or value == "":
        return "–"
    if value in ([], (), {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value) if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(number(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {number(item)}" for key, item in value.items())
    return str(value)


def printable(text: str) -> str:
    """`text` without the control characters that could act on a terminal."""
    return CONTROL.sub("", text.replace("\r\n", "\n").expandtabs(4))


def shorten(text: str, length: int) -> str:
    """The text on one line, at most `length` characters, cut with an ellipsis."""
    line = " ".join(printable(text).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def sparkline(values: Sequence[float], width: int) -> str:
    """The finite values as block characters, averaged down to at most `width` of them."""
    points = [value for value in values if finite(value)]
    if not points:
        return ""
    buckets = min(width, len(points))
    edges = [round(i * len(points) / buckets) for i in range(buckets + 1)]
    means = [sum(points[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    step = (high - low) / (len(BARS) - 1) or 1.0
    return "".join(BARS[round((mean - low) / step)] for mean in means)


def stop_reason(sample: dict[str, Any]) -> str:
    """Why a generated answer ended, in words."""
    return STOPS.get(str(sample.get("stop")), str(sample.get("stop") or "not known"))


def hub_id(uri: str) -> str | None:
    """The "org/name" of a Hub URI with or without revision and options, else None."""
    return re.split("[@?]", uri.removeprefix("hf://"))[0] if uri.startswith("hf://") else None


def public_name(uri: str) -> str:
    """A model or dataset as strangers may read it: a Hub id, or only what kind of place it is.

    Paths, buckets and web addresses can tell names that are nobody else's business.
    """
    if name := hub_id(uri):
        return name
    if uri.startswith("s3://"):
        return "a private S3 bucket"
    if uri.startswith("https://"):
        return "a file on the web"
    return "a local folder"


def short_name(uri: str) -> str:
    """The last component of a URI or path, for headlines."""
    return (hub_id(uri) or uri.split("?")[0]).rstrip("/").rsplit("/", 1)[-1]


def items(value: str | None) -> list[str]:
    """The items of a comma list of the spec."""
    return [item.strip() for item in (value or "").split(",") if item.strip()]


def prompt_text(messages: Sequence[dict[str, Any]]) -> str:
    """What the person asked last in a chat, for one-line mentions."""
    asked = [message for message in messages if message["role"] == "user"]
    return str((asked or list(messages))[-1]["content"])


def answer_text(sample: dict[str, Any]) -> str:
    """What the user would see of a generated answer; "" when it was cut while reasoning."""
    return str(sample["final"])
