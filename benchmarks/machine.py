"""What a figure was measured on."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version


def describe() -> dict[str, object]:
    """Processor, load, versions and date."""
    load = os.getloadavg()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": [round(part, 2) for part in load],
        "versions": {name: version(name) for name in ("askq", "celery", "kombu", "redis", "openai", "flower")},
    }
