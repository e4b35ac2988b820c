"""What people are told of peers that were turned away."""

from backupsync.control import Refusal
from backupsync_operator.refusals import QUIET_SECONDS, news

STRANGER = Refusal("rank 1 attempt 1", "wrong-key", "not made with this job's key")


def test_a_refusal_is_told_once():
    said, told = news([STRANGER], {}, 100.0)
    assert said == ["the aggregator turned away rank 1 attempt 1: wrong-key: not made with this job's key"]
    assert news([STRANGER], told, 101.0 + QUIET_SECONDS) == ([], told)


def test_a_stranger_with_a_thousand_names_is_told_once_per_code():
    _, told = news([STRANGER], {}, 100.0)
    many = [Refusal(f"rank {n} attempt 1", "wrong-key", "no") for n in range(1000)]
    revenant = Refusal("rank 0 attempt 1", "not-a-member", "replaced")
    said, told = news([*many, revenant], told, 101.0)
    assert said == ["the aggregator turned away rank 0 attempt 1: not-a-member: replaced"]
    said, _ = news([*many, revenant], told, 100.0 + QUIET_SECONDS)
    assert said == ["the aggregator turned away rank 999 attempt 1, and 999 more: wrong-key: no"]


def test_a_peer_that_tries_again_is_told_again_after_a_while():
    _, told = news([STRANGER], {}, 100.0)
    again = Refusal(STRANGER.peer, STRANGER.code, STRANGER.detail, count=2)
    assert news([again], told, 101.0)[0] == []
    assert len(news([again], told, 100.0 + QUIET_SECONDS)[0]) == 1


def test_what_an_aggregator_has_forgotten_is_no_news():
    _, told = news([STRANGER], {}, 100.0)
    assert news([], told, 101.0 + QUIET_SECONDS) == ([], told)
