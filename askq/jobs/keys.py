"""Every key askq writes to Redis, in one place.

Keys of one shard carry its hash tag (`{s07}`), so that each Lua script touches one slot of a Redis Cluster.

| key | type | holds |
|---|---|---|
| `askq:{sNN}:due:<lane>` | sorted set | job id → when it is due (Unix seconds); a claim is a due time in the future |
| `askq:{sNN}:job:<id>` | hash | the record, small fields only |
| `askq:{sNN}:ask:<id>` | string | the question and its columns, JSON |
| `askq:{sNN}:ans:<id>` | string | the answer, JSON, compressed above 1 KiB |
| `askq:{sNN}:calls:<id>` | hash | function calls of a job that has not ended: what is asked for, and the outputs |
| `askq:{sNN}:functions` | sorted set | function call (`<round>.<n>/<job id>`) → when it is due, a claim likewise |
| `askq:{sNN}:live:<id>` | stream | what is seen of the run while it is at work (`live.py`); bounded, expires |
| `askq:{sNN}:teller:<id>` | string | who reads the run's stream and tells the live log |
| `askq:{sNN}:rows:<batch>` | sorted set | row id → position in the list |
| `askq:{sNN}:count:<batch>` | hash | jobs by state, tokens, cost, time of the last end |
| `askq:{sNN}:lease:<lane>` | string | the chain execution that serves this shard |
| `askq:{sNN}:objects:<owner>` | hash | remote objects of a job, batch or thing (`objects.py`): name → JSON |
| `askq:{sNN}:buried` | sorted set | owner → when the first of its objects is to be deleted at the service |
| `askq:{sNN}:users:<thing>` | set | batches and jobs that use a thing: an assistant, an uploaded file, a store |
| `askq:{sNN}:uses:<user>` | set | the things that a batch or job uses |
| `askq:{sNN}:receipt:<name>` | hash | what `askq forget` has erased of it so far: counts |
| `askq:{sNN}:dead` | sorted set | dead letters: jobs that killed workers → when they were given up |
| `askq:batch:<id>` | hash | name, assistant, total … |
| `askq:budget:<batch>` | hash | millionths of a dollar: bound of a batch, spent, put aside for jobs under way |
| `askq:again:<batch>` | set | hash of each run that was wanted once more though one may have been paid for already |
| `askq:forgetting` | set | batches and jobs that are being forgotten |
| `askq:batches` | sorted set | batch id → when it was opened |
| `askq:idem:<sha256>` | string | idempotency key → batch id |
| `askq:assistant:<digest>` | string | an assistant's definition, JSON |
| `askq:remote:<account>:<digest>` | string | id of the remote assistant object |
| `askq:chains:<lane>` | sorted set | live chain executions → until when; `tools` are those that run functions |
| `askq:hint:<lane>` | string | a message that starts a chain is on its way |
| `askq:nodes` | sorted set | live workers (JSON) → until when |
| `askq:pauses` | hash | account, or account/protocol → why it must not be called |
| `askq:probe:<account>` | string | somebody is probing a paused account |
| `askq:{sNN}:clock` | string | the shard's schedule has just followed a clock that was set back |
| `askq:{limits}:of:<account>/<protocol>/<model>` | hash | what it grants: rate, burst … (`limit_rule.py`) |
| `askq:{limits}:waits` | sorted set | scopes in which calls wait for a permit → until when |
| `askq:{library}:item:<account>:<name>` | hash | a file or store that is kept at the service (`library.py`) |
| `askq:{library}:due:<account>` | sorted set | items to be worked on → when |
| `askq:{library}:names:<account>` | sorted set | all items → since when |
| `askq:{library}:clock:<account>` | string | the library's schedule has just followed a clock that was set back |
| `askq:libraries` | set | accounts that have a library |
| `askq:lasted:<digest>` | hash | how long runs of an assistant took: what is counted (`took.py`) → how often |
| `askq:inventory` | string | somebody has asked what of askq's there is at the service |
| `askq:inventory:<token>` | string | the answer, JSON, for some minutes |
| `askq:home` | string | marks what this askq has made at a service, to tell it from what another has |
| `askq:disk` | string | written before asking whether everything written so far is on disk |
| `askq:disk:{<number>}` | string | the same on a cluster, one for each node |
| `askq:audit:turn` | string | the worker that audits in the background |
| `askq:audit:place` | string | how far its audit has come, JSON |
| `askq:audit:last` | string | the outcome of the last one, JSON |
"""

from __future__ import annotations

import hashlib

from askq.ids import shard_of
from askq.jobs.model import Lane

PREFIX = "askq:"
TOOLS = "tools"
"""The chain that runs functions, beside those of the lanes."""
BATCHES = PREFIX + "batches"
NODES = PREFIX + "nodes"
PAUSES = PREFIX + "pauses"
WAITS = PREFIX + "{limits}:waits"
DISK = PREFIX + "disk"
HOME = PREFIX + "home"
INVENTORY = PREFIX + "inventory"
FORGETTING = PREFIX + "forgetting"
LIBRARIES = PREFIX + "libraries"
AUDIT_TURN = PREFIX + "audit:turn"
AUDIT_PLACE = PREFIX + "audit:place"
AUDIT_LAST = PREFIX + "audit:last"


def shard_prefix(shard: int) -> str:
    """What every key of a shard begins with."""
    return f"{PREFIX}{{s{shard:02d}}}:"


def due(shard: int, lane: Lane) -> str:
    return f"{shard_prefix(shard)}due:{lane}"


def dues(shard: int) -> tuple[str, str]:
    """Both halves of a shard's schedule."""
    return due(shard, Lane.START), due(shard, Lane.POLL)


def job_stem(shard: int) -> str:
    """What the keys of a shard's records begin with; the job id follows."""
    return f"{shard_prefix(shard)}job:"


def ask_stem(shard: int) -> str:
    """What the keys of a shard's questions begin with; the job id follows."""
    return f"{shard_prefix(shard)}ask:"


def answer_stem(shard: int) -> str:
    """What the keys of a shard's answers begin with; the job id follows."""
    return f"{shard_prefix(shard)}ans:"


def calls_stem(shard: int) -> str:
    """What the keys of a shard's function calls begin with; the job id follows."""
    return f"{shard_prefix(shard)}calls:"


def calls(job_id: str) -> str:
    return calls_stem(shard_of(job_id)) + job_id


def functions(shard: int) -> str:
    return f"{shard_prefix(shard)}functions"


def rows_stem(shard: int) -> str:
    """What the keys of a shard's lists of rows begin with; the batch id follows."""
    return f"{shard_prefix(shard)}rows:"


def lease(shard: int, lane: Lane) -> str:
    return f"{shard_prefix(shard)}lease:{lane}"


def clock(shard: int) -> str:
    return f"{shard_prefix(shard)}clock"


def job(job_id: str) -> str:
    return job_stem(shard_of(job_id)) + job_id


def ask(job_id: str) -> str:
    return ask_stem(shard_of(job_id)) + job_id


def answer(job_id: str) -> str:
    return answer_stem(shard_of(job_id)) + job_id


def live(job_id: str) -> str:
    return f"{shard_prefix(shard_of(job_id))}live:{job_id}"


def teller(job_id: str) -> str:
    return f"{shard_prefix(shard_of(job_id))}teller:{job_id}"


def rows(shard: int, batch_id: str) -> str:
    return rows_stem(shard) + batch_id


def count(shard: int, batch_id: str) -> str:
    return f"{shard_prefix(shard)}count:{batch_id}"


def objects_stem(shard: int) -> str:
    """What the keys of a shard's remote objects begin with; their owner follows."""
    return f"{shard_prefix(shard)}objects:"


def objects(owner: str) -> str:
    return objects_stem(shard_of(owner)) + owner


def buried(shard: int) -> str:
    return f"{shard_prefix(shard)}buried"


def users(thing: str) -> str:
    return f"{shard_prefix(shard_of(thing))}users:{thing}"


def uses(user: str) -> str:
    return f"{shard_prefix(shard_of(user))}uses:{user}"


def receipt_stem(shard: int) -> str:
    """What the keys of a shard's receipts begin with; what was forgotten follows."""
    return f"{shard_prefix(shard)}receipt:"


def receipt(shard: int, forgotten: str) -> str:
    return receipt_stem(shard) + forgotten


def of_job(job_id: str) -> list[str]:
    """Every key, beside its record and its remote objects, that belongs to a job alone: `askq forget` erases them."""
    return [ask(job_id), answer(job_id), calls(job_id), live(job_id), teller(job_id)]


def dead(shard: int) -> str:
    return f"{shard_prefix(shard)}dead"


def budget(batch_id: str) -> str:
    return f"{PREFIX}budget:{batch_id}"


def again(batch_id: str) -> str:
    return f"{PREFIX}again:{batch_id}"


def batch(batch_id: str) -> str:
    return f"{PREFIX}batch:{batch_id}"


def idempotency(key: str) -> str:
    return f"{PREFIX}idem:{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()}"


def assistant(digest: str) -> str:
    return f"{PREFIX}assistant:{digest}"


def remote(account: str, digest: str) -> str:
    return f"{PREFIX}remote:{account}:{digest}"


def limit(scope: str) -> str:
    return f"{PREFIX}{{limits}}:of:{scope}"


def item_stem(account: str) -> str:
    """What the keys of an account's library items begin with; the item's name follows."""
    return f"{PREFIX}{{library}}:item:{account}:"


def item(account: str, name: str) -> str:
    return item_stem(account) + name


def items_due(account: str) -> str:
    return f"{PREFIX}{{library}}:due:{account}"


def items_clock(account: str) -> str:
    return f"{PREFIX}{{library}}:clock:{account}"


def item_names(account: str) -> str:
    return f"{PREFIX}{{library}}:names:{account}"


def took(digest: str) -> str:
    # Not `took`: there runs that had ended were counted, and nothing else.
    return f"{PREFIX}lasted:{digest}"


def inventory(token: str) -> str:
    return f"{INVENTORY}:{token}"


def disk_mark(number: int) -> str:
    """A key of a slot that the number decides."""
    return f"{DISK}:{{{number}}}"


def chains(lane: Lane | str) -> str:
    return f"{PREFIX}chains:{lane}"


def hint(lane: Lane | str) -> str:
    return f"{PREFIX}hint:{lane}"


def probe(account: str) -> str:
    return f"{PREFIX}probe:{account}"
