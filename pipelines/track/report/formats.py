"""Numbers and text as the page shows them; what there is none of is a dash.

Runs on: driver.
Takes:   numbers, or text from data and models.
Gives:   short text: the template's filters.
"""

from __future__ import annotations

import json
from typing import Any

from pipelines.printable import printable
from pipelines.track.report.charts import si

MAX_TEXT = 20_000
UNITS = ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def shown(text: str) -> str:
    """Text of any origin: what cannot be seen is spelled out, very long text is cut."""
    return printable(text[:MAX_TEXT]) + (" […]" if len(text) > MAX_TEXT else "")


def setting(value: Any) -> str:
    """A setting's value as it stands in a recipe or a platform file."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value if value and value == " ".join(value.split()) else json.dumps(value, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    return "–" if value is None else si(value)


def fixed(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f} %"


def bytes_of_unit(value: float) -> tuple[int, str]:
    """The unit in which so many bytes are a short number: its bytes, its name."""
    return next(((size, unit) for size, unit in UNITS if value >= size), (1, "B"))


def bytes_(value: float | None) -> str:
    if value is None:
        return "–"
    size, unit = bytes_of_unit(value)
    return f"{value:.0f} B" if size == 1 else f"{value / size:.1f} {unit}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


FILTERS = {"count": count, "si": short, "fixed": fixed, "percent": percent, "bytes": bytes_, "duration": duration,
           "printable": shown, "setting": setting}
