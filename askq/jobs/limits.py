"""What an account grants, in words: scopes, permits, what replies said of them, and who waits.

A scope is what a service counts by itself: the creates of one protocol and model, or the GETs of a protocol. By which
rule permits are given, `limit_rule` says.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_WINDOW = 4
"""Calls that may be open at once on an account nothing is known of."""
NO_WINDOW = 1_000_000
"""A window nobody fills: for calls that need no care until the first refusal."""
FORGOTTEN_S = 2.0
"""A wait that is over for so long was given up."""
GETS = "*"
"""The model of a protocol's GETs: no service counts those by model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a service counts together."""

    account: str
    protocol: str
    model: str

    def __str__(self) -> str:
        return f"{self.account}/{self.protocol}/{self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What headers say of one bucket; None where they do not."""

    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None
    """Seconds until it is full again."""


NOTHING_TOLD = Told()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What people allow at most, per second; None = no bound."""

    requests: float | None = None
    tokens: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """What a scope grants now."""

    granted: int
    wait_s: float
    """Until the next one, exactly where the rate is known; 0 when all were granted."""
    ready: float
    """Permits left after these, as far as requests and open calls decide."""
    rate: float | None
    """Permits per second; None while no limit is known."""
    ratio: float
    """By how much tokens were underestimated so far."""
    now: float
    serial: float = 0.0
    """How many permits were given so far, these included, and for how many tokens."""
    tserial: float = 0.0
    held: bool = False
    """Whether the service asked everybody to wait."""
    known: bool = False
    """Whether there is a record: until something is refused, calls that need no care have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What replies said since the last report."""

    window: int = FIRST_WINDOW
    """How many calls may be open at once where nothing is known."""
    closed: int = 0
    """Calls that are over, whatever came of them; free ones for which no permit was taken, too."""
    accepted: int = 0
    refused: int = 0
    granted_at: float = 0.0
    """When the latest refused call had got its permit: one from before a hold says nothing new."""
    retry_after_s: float | None = None
    contradicted: bool = False
    """Whether a refusal came with headers by which it could not be."""
    requests: Told = NOTHING_TOLD
    token: Told = NOTHING_TOLD
    serial: float = 0.0
    """Of the call whose reply told this: what was given later, the service may not have counted yet."""
    tserial: float = 0.0
    unused: int = 0
    """Permits given back."""
    unused_tokens: float = 0.0
    estimated: float = 0.0
    """Tokens put aside for runs that have ended since …"""
    used: float = 0.0
    """… and what they used."""

    @property
    def free(self) -> bool:
        """Whether these calls need no care until many are refused."""
        return self.window >= NO_WINDOW / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A scope in which questions wait for the account's limit."""

    account: str
    protocol: str
    model: str
    until: float
    """When the next permit comes (Unix seconds, by the clock of Redis)."""
    now: float
    rate: float | None

    @classmethod
    def of(cls, scope: Scope, until: float, looked: Permit) -> Wait:
        """A scope in which calls wait until then at least, and what a look at it brought."""
        return cls(
            account=scope.account,
            protocol=scope.protocol,
            model=scope.model,
            until=max(until, looked.now + looked.wait_s),
            now=looked.now,
            rate=looked.rate,
        )

    @property
    def seconds(self) -> float:
        """How much longer."""
        return max(0.0, self.until - self.now)
