"""What an account is called: the same word for producers and workers, and none that tells its key."""

from __future__ import annotations

import hashlib


def alias(base_url: str | None, api_key: str) -> str:
    """A name for an account that reveals nothing of its key."""
    return hashlib.sha256(f"{base_url or ''}|{api_key}".encode()).hexdigest()[:10]
