"""Who asks: the Python client and the command line.

from producer import Client

with Client() as client:
    batch = client.submit(["What is 17 × 23?"], assistant="tutor")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.batch import Batch
    from producer.client import Client

__all__ = ["Batch", "Client"]


def __getattr__(name: str) -> Any:
    # `askq --help` passes through here and needs neither.
    if name == "Client":
        from producer.client import Client

        return Client
    if name == "Batch":
        from producer.batch import Batch

        return Batch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
