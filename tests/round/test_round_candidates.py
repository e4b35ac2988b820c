"""A successor beside its predecessor: a candidate until its first whole gradient, then the rank's own."""

from round_dsl import Job

from backupsync.trace import Membership
from backupsync_aggregator.round import Member

OLD, NEW = Member(0, 1), Member(0, 2)


def surge(workers=2, backups=1):
    """A job whose rank 0 gets a successor."""
    job = Job(workers, backups).start()
    job.scale(workers, backups, range(workers + backups), candidates=[NEW])
    job.enter(NEW)
    return job


def test_a_candidate_computes_beside_its_predecessor():
    job = surge()
    assert job.assignments[NEW].iteration == 0
    assert job.round.members[NEW].state == "Candidate"
    assert job.round.members[OLD].state == "Live"


def test_a_candidate_does_not_make_its_rank_count_twice():
    assert surge().round.live == 3


def test_a_candidate_is_promoted_at_its_first_gradient_and_its_predecessor_fenced_in_one_step():
    job = surge()
    heard = job.commit(NEW)
    assert heard.told == [(0, "not-live"), (0, "accepted")]
    assert heard.dismissed == [(OLD, "fenced")]
    assert [m.event for m in heard.lines(Membership)] == ["promoted", "fenced"]
    assert job.round.members[NEW].state == "Live"
    assert job.round.members[OLD].state == "Fenced"
    assert [c.member for c in job.commit(1).updates[0].contributions] == [NEW, Member(1, 1)]


def test_when_the_predecessor_was_faster_the_candidate_is_promoted_but_its_gradient_dropped():
    job = surge()
    job.push(OLD)
    heard = job.commit(NEW)
    assert heard.told == [(0, "duplicate-rank")]
    assert heard.dismissed == [(OLD, "fenced")]
    assert [c.member for c in job.commit(1).updates[0].contributions] == [OLD, Member(1, 1)]


def test_a_broken_gradient_does_not_promote():
    job = surge()
    job.commit(NEW, whole=False)
    job.commit(NEW, finite=False)
    assert job.round.members[NEW].state == "Candidate"


def test_a_late_gradient_does_not_promote():
    job = surge()
    job.push(1, 2)
    assert job.commit(NEW).told == [(0, "late")]
    assert job.round.members[NEW].state == "Candidate"


def test_a_candidate_waits_while_its_rank_has_a_gradient_accepted():
    job = Job(2, 1).start()
    job.push(OLD)
    job.scale(2, 1, range(3), candidates=[NEW])
    assert job.enter(NEW).assigned == []
    assert NEW in job.push(1).assigned


def test_a_candidate_whose_predecessor_died_takes_over_all_the_same():
    job = surge()
    job.leave(OLD)
    assert job.round.live == 3
    assert job.commit(NEW).dismissed == []
    assert job.round.members[OLD].state == "Fenced"
    assert job.join(OLD).dismissed == [(OLD, "fenced")]


def test_a_promotion_stands_though_the_engine_has_not_heard_of_it():
    job = surge()
    job.commit(NEW)
    job.scale(2, 1, range(3), candidates=[NEW])
    assert job.round.members[NEW].state == "Live"
    assert job.join(OLD).dismissed == [(OLD, "fenced")]


def test_the_engine_may_promote_by_itself():
    job = surge()
    assert job.scale(2, 1, [NEW, 1, 2]).dismissed == [(OLD, "fenced")]
    assert job.round.members[NEW].state == "Live"


def test_a_candidate_withdrawn_goes_home_and_its_predecessor_stays():
    job = surge()
    assert job.scale(2, 1).dismissed == [(NEW, "scaled")]
    job.push(OLD)
    assert job.commit(1).updates


def test_a_candidate_lost_leaves_its_predecessor_at_work():
    job = surge()
    job.leave(NEW)
    assert job.round.live == 3
    assert job.commit(OLD).told == [(0, "accepted")]
