"""How a job ends: by exactly one of iterations, examples, epochs; suspended; or stopped."""

from round_dsl import Job

from backupsync.trace import Ended
from backupsync_aggregator.round import Member, Origin, events


def test_a_job_ends_after_its_iterations():
    job = Job(workers=1, training={"iterations": 2}).start()
    job.push(0, 0)
    assert job.round.phase == "Evaluating"
    assert job.evaluated(0, accuracy=0.9).finish == ("Succeeded", "Completed")
    assert job.round.phase == "Succeeded"
    assert job.round.iteration == 2


def test_a_job_ends_once_its_examples_are_applied():
    job = Job(workers=2, training={"examples": 13}).start()
    job.push(0, 1)
    assert job.round.phase == "Training"
    job.push(0, 1)
    assert job.round.examples == 16
    assert job.round.phase == "Evaluating"


def test_the_end_is_recorded_before_everyone_is_sent_home():
    job = Job(workers=1, training={"iterations": 1}).start()
    job.push(0)
    heard = job.evaluated(0)
    (line,) = heard.lines(Ended)
    assert (line.iteration, line.outcome, line.reason) == (1, "Succeeded", "Completed")
    assert heard.effects[-1].outcome == "Succeeded"


def test_a_job_resumed_at_its_end_only_evaluates():
    job = Job(workers=2, training={"iterations": 5}, origin=Origin(iteration=5, examples=40, next_ticket=9))
    job.join(1)
    assert job.ready(1).evaluating == [1]
    assert job.evaluated(1, loss=0.1).finish == ("Succeeded", "Completed")


def test_totals_are_exact_where_the_manifest_says_so():
    job = Job(workers=2, training={"iterations": 50}).start()
    job.push(0, 1)
    assert (job.round.iterations_total, job.round.examples_total) == (50, 400)


def test_totals_are_estimated_where_it_does_not():
    job = Job(workers=2, training={"examples": 100}).start()
    assert (job.round.iterations_total, job.round.examples_total) == (13, 100)
    job = Job(workers=2, training={"epochs": 2})
    assert job.round.iterations_total is None
    assert job.round.examples_total is None
    job.on(events.DataLength(10))
    assert job.round.iterations_total == 10


def test_an_estimate_knows_that_dropped_batches_are_gone():
    job = Job(workers=1, backups=1, training={"epochs": 1})
    job.on(events.DataLength(40))
    job.start()
    for _ in range(10):
        job.push(0, 1)
    assert job.round.iterations_total in (20, 21), "half of the batches are dropped"


def test_suspension_lets_the_running_iteration_complete_and_hands_out_nothing():
    job = Job(workers=2).start()
    job.push(0)
    job.ask(suspend=True)
    assert job.round.reason == "Suspending"
    heard = job.push(1)
    assert len(heard.updates) == 1
    assert heard.assigned == []
    assert heard.finish == ("Suspended", "Suspended")
    assert job.round.phase == "Suspended"


def test_suspension_does_not_wait_for_what_cannot_come():
    job = Job(workers=3).start()
    job.push(0)
    job.leave(2)
    heard = job.ask(suspend=True)
    assert heard.finish == ("Suspended", "Suspended")
    assert heard.told == [(1, "ended")]


def test_suspension_waits_no_longer_than_its_grace_period():
    job = Job(workers=2, runPolicy={"suspendGraceSeconds": 30}).start()
    job.ask(suspend=True)
    assert job.tick(29).finish is None
    assert job.tick(1).finish == ("Suspended", "Suspended")


def test_a_refused_gradient_of_a_suspended_job_is_not_tried_again():
    job = Job(workers=2).start()
    job.ask(suspend=True)
    assert job.commit(0, finite=False).finish == ("Suspended", "Suspended")


def test_suspension_withdrawn_in_time_changes_nothing():
    job = Job(workers=1, backups=1).start()
    job.push(0)
    job.abandon(1)
    job.ask(suspend=True)
    assert job.ready(1).assigned == []
    assert job.ask().assigned == [Member(1, 1)]


def test_a_job_suspended_before_it_began_is_suspended_at_once():
    job = Job(workers=2, desire=Job.desire(range(2), 2, 0, suspend=True))
    assert job.tick().finish == ("Suspended", "Suspended")


def test_tickets_of_a_suspended_job_go_out_again_when_it_resumes():
    job = Job(workers=2).start()
    job.push(0)
    job.ask(stop=True)
    assert job.round.returned == (0, 1, 2, 3)
    origin = Origin(next_ticket=job.round.next_ticket, returned=job.round.returned, epoch=2)
    resumed = Job(workers=2, origin=origin).start()
    assert [resumed.assignments[Member(r, 1)].ticket for r in (0, 1)] == [0, 2]


def test_stop_ends_at_once_and_tells_everyone():
    job = Job(workers=2).start()
    heard = job.ask(stop=True)
    assert heard.told == [(0, "ended"), (1, "ended")]
    assert heard.finish == ("Suspended", "Stopped")


def test_stop_during_the_final_evaluation_keeps_the_success():
    job = Job(workers=1, training={"iterations": 1}).start()
    job.push(0)
    assert job.ask(stop=True).finish == ("Succeeded", "Completed")


def test_after_the_end_nothing_has_an_effect():
    job = Job(workers=1).start()
    job.ask(stop=True)
    assert job.commit(0).effects == job.ready(0).effects == job.tick(1e6).effects == []
    assert job.scale(1).effects == []
