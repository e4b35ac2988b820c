"""One message of every kind, and some kinds twice: with the least and with the most in them."""

from typing import get_args

from backupsync.wire.messages import (
    Abandoned,
    AbortEvaluation,
    Assign,
    Challenge,
    Chunk,
    Commit,
    Evaluate,
    Evaluated,
    Exhausted,
    FromAggregator,
    FromWorker,
    Goodbye,
    Heartbeat,
    Hello,
    Initial,
    InitialDone,
    Leave,
    Outcome,
    Parameters,
    Proof,
    Ready,
    Reason,
    RefusalCode,
    Refused,
    Stale,
    TensorEntry,
    Timing,
    Verdict,
    Welcome,
)


def digest(first: int) -> bytes:
    return bytes(range(first, first + 32))


HELLO = Hello(
    job="6f1c", rank=3, attempt=1, start=0, incarnation=digest(0), protocol=1, schema_hash=digest(32),
    nonce=digest(64),
)  # fmt: skip
CHALLENGE = Challenge(nonce=digest(96), epoch=2)
TENSORS = (
    TensorEntry(name="embedding.weight", dtype="float32", shape=(5, 3), role="trainable", aliases=("head",)),
    TensorEntry(name="norm.running_mean", dtype="float32", shape=(3,), role="buffer"),
    TensorEntry(name="norm.num_batches_tracked", dtype="int64", shape=(), role="buffer"),
    TensorEntry(name="stem.weight", dtype="bfloat16", shape=(2, 2), role="frozen"),
)
TIMING = Timing(compute=0.25, data=0.5, push=0.125, cpu=0.25, run_queue=0.0625, throttled=0.5, injected=1.0)

FROM_WORKER: dict[str, FromWorker] = {
    "hello": HELLO,
    "proof": Proof(mac=digest(128), schema=TENSORS),
    "initial": Initial(section="moving", offset=4096),
    "initial-done": InitialDone(digest=digest(160), batches_per_epoch=45),
    "initial-done/no-length": InitialDone(digest=digest(160), batches_per_epoch=None),
    "ready": Ready(holds=-1),
    "ready/again": Ready(holds=7, batches_per_epoch=45),
    "chunk": Chunk(iteration=7, ticket=42, shard=0, offset=2097152),
    "commit": Commit(
        epoch=2, attempt=1, iteration=7, ticket=42, scale=1.0, examples=32, finite=True, norm=0.5, loss=2.25
    ),
    "commit/full": Commit(
        epoch=2, attempt=1, iteration=7, ticket=42, scale=0.5, examples=32, finite=False, norm=2.0, loss=2.25,
        absent=(0, 5), timing=TIMING, metrics={"accuracy": 0.75},
    ),
    "abandoned": Abandoned(iteration=7, ticket=42, timing=TIMING),
    "exhausted": Exhausted(iteration=7, ticket=42),
    "evaluated": Evaluated(iteration=50, metrics={"accuracy": 0.75}, seconds=1.5),
    "evaluated/error": Evaluated(iteration=50, error="aborted"),
    "heartbeat": Heartbeat(progress=9, phase="compute"),
    "goodbye": Goodbye(reason="interrupted"),
}  # fmt: skip

FROM_AGGREGATOR: dict[str, FromAggregator] = {
    "challenge": CHALLENGE,
    "welcome": Welcome(mac=digest(192), epoch=2, iteration=7, send_initial=True),
    "refused": Refused(code=RefusalCode.NOT_A_MEMBER, detail="rank 3 attempt 1 was replaced"),
    "parameters": Parameters(epoch=2, iteration=7, section="moving", offset=0, total=8192),
    "assign": Assign(epoch=2, iteration=7, ticket=42, next_ticket=48, to_the_end=False),
    "assign/last": Assign(epoch=2, iteration=7, ticket=42, next_ticket=None, to_the_end=True),
    "verdict/accepted": Verdict(iteration=7, ticket=42, outcome=Outcome.ACCEPTED, place=2),
    "verdict/dropped": Verdict(iteration=7, ticket=42, outcome=Outcome.DROPPED, reason=Reason.LATE),
    "stale": Stale(iteration=7),
    "evaluate": Evaluate(iteration=50, averaged=True),
    "abort-evaluation": AbortEvaluation(iteration=50),
    "leave": Leave(why="fenced", detail="attempt 2 of rank 3 has taken over"),
}

EVERY = FROM_WORKER | FROM_AGGREGATOR


def kinds(messages: dict[str, FromWorker] | dict[str, FromAggregator]) -> set[type]:
    return {type(message) for message in messages.values()}


assert kinds(FROM_WORKER) == set(get_args(FromWorker)), "an example of every message of a worker"
assert kinds(FROM_AGGREGATOR) == set(get_args(FromAggregator)), "and of the aggregator"
