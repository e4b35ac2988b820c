"""Evaluation rides on the backup slack: one worker evaluates while the others train."""

import pytest
from round_dsl import Job

from backupsync.trace import Evaluation


def evaluations(job):
    return [(e.iteration, e.rank, e.error) for e in job.heard.lines(Evaluation)]


def every(iterations, workers=2, backups=1, deadline=30.0, **how):
    training = {"evaluation": {"everyIterations": iterations, "deadlineSeconds": deadline}}
    return Job(workers, backups, training=training, **how).start()


def test_one_worker_evaluates_while_the_others_train():
    job = every(1)
    assert job.push(0, 1).evaluating == [0]
    assert job.round.members[(0, 1)].evaluating
    job.push(2)
    job.push(1)
    assert job.push(2).updates
    assert job.evaluated(0, accuracy=0.5).lines(Evaluation)[0].metrics == {"accuracy": 0.5}
    assert job.ready(0).assigned


def test_it_comes_every_so_many_iterations():
    job = every(3)
    for _ in range(9):
        busy = [m.rank for m, view in job.round.members.items() if view.assignment]
        job.push(*busy)
        for rank in range(3):
            job.evaluated(rank, loss=1.0)
            job.ready(rank)
    assert [iteration for iteration, _, _ in evaluations(job)] == [3, 6, 9]


def test_workers_take_turns():
    job = every(1, workers=1, backups=2)
    ranks = []
    while len(ranks) < 6:
        busy = [m.rank for m, view in job.round.members.items() if view.assignment]
        ranks += job.push(*busy).evaluating
        job.evaluated(ranks[-1], loss=1.0)
        job.ready(ranks[-1])
    assert sorted(ranks[:3]) == sorted(ranks[3:]) == [0, 1, 2]


def test_when_those_in_turn_are_slow_another_evaluates_from_the_next_iteration_on():
    job = every(1, workers=1, backups=2)
    assert job.push(0).evaluating == [0]
    job.evaluated(0, loss=1.0)
    job.ready(0)
    assert job.push(0).evaluating == [], "it is the turn of 1 and 2, but they do not come"
    assert job.push(0).evaluating == [0]


def test_an_evaluator_is_not_handed_a_ticket():
    job = every(1)
    job.push(0, 1)
    assert job.ready(0).effects == []


def test_it_waits_until_there_is_slack():
    job = every(1)
    job.leave(2)
    assert job.push(0, 1).evaluating == []
    assert job.enter(2).evaluating == [2]


def test_it_is_aborted_when_the_slack_is_needed():
    job = every(1)
    job.push(0, 1)
    heard = job.leave(2)
    assert heard.aborted == [0]
    assert "needed" in evaluations(job)[0][2]
    assert job.ready(0).assigned


def test_it_is_aborted_at_its_deadline():
    job = every(1)
    job.push(0, 1)
    assert job.tick(29.9).aborted == []
    assert job.tick(0.1).aborted == [0]
    assert "deadline" in evaluations(job)[0][2]


def test_an_answer_that_comes_after_the_abort_is_not_counted():
    job = every(1)
    job.push(0, 1)
    job.tick(30)
    assert job.evaluated(0, accuracy=1.0).effects == []


def test_with_no_backup_workers_everyone_pauses_for_it():
    job = every(1, workers=2, backups=0)
    heard = job.push(0, 1)
    assert heard.evaluating == [0]
    assert heard.assigned == []
    assert job.round.reason == "PausedForEvaluation"
    assert len(job.evaluated(0, accuracy=0.5).assigned) == 1
    assert len(job.ready(0).assigned) == 1


def test_a_pause_ends_with_the_deadline():
    job = every(1, workers=2, backups=0)
    job.push(0, 1)
    assert [m.rank for m in job.tick(30).assigned] == [1]


def test_a_pause_goes_over_to_another_worker_when_the_evaluator_leaves_a_few_times():
    job = every(1, workers=3, backups=0)
    job.push(0, 1, 2)
    assert job.leave(0).evaluating == [1]
    assert job.leave(1).evaluating == [2]
    job.enter(0)
    job.enter(1)
    heard = job.leave(2)
    assert heard.evaluating == []
    assert len(heard.assigned) == 2
    assert len(evaluations(job)) == 3


def test_a_program_with_nothing_to_evaluate_is_not_asked_again():
    job = every(1)
    job.push(0, 1)
    job.evaluated(0)
    job.ready(0)
    for _ in range(4):
        assert job.push(0, 1).evaluating == []
    assert evaluations(job) == []


def test_an_error_of_the_program_is_recorded_and_training_goes_on():
    job = every(1)
    job.push(0, 1)
    job.evaluated(0, error="ValueError: no")
    assert evaluations(job) == [(1, 0, "ValueError: no")]
    assert job.ready(0).assigned


@pytest.mark.parametrize(("decay", "averaged"), [(None, False), (0.99, True)])
def test_the_trace_says_whether_the_average_was_evaluated(decay, averaged):
    job = Job(workers=1, training={"iterations": 1, "emaDecay": decay}).start()
    job.push(0)
    assert job.evaluated(0, loss=1.0).lines(Evaluation)[0].averaged is averaged


def test_the_final_parameters_are_evaluated_once_before_the_job_finishes():
    job = Job(workers=2, training={"iterations": 1}).start()
    assert job.push(0, 1).evaluating == [0]
    assert job.round.phase == "Evaluating"
    assert job.evaluated(0, accuracy=0.9).finish == ("Succeeded", "Completed")
    assert evaluations(job) == [(1, 0, None)]


def test_a_running_evaluation_gives_way_to_the_final_one():
    training = {"iterations": 2, "evaluation": {"everyIterations": 1}}
    job = Job(workers=1, backups=1, training=training).start()
    assert job.push(0).evaluating == [0]
    job.push(1)
    heard = job.push(1)
    assert heard.aborted == [0]
    assert heard.evaluating == [1]


def test_a_final_evaluator_that_leaves_is_replaced_and_in_the_end_done_without():
    job = Job(workers=4, training={"iterations": 1}).start()
    job.push(0, 1, 2, 3)
    assert job.leave(0).evaluating == [1]
    assert job.leave(1).evaluating == [2]
    assert job.leave(2).finish == ("Succeeded", "Completed")


def test_the_final_evaluation_does_not_outlast_its_deadline():
    job = Job(workers=1, training={"iterations": 1, "evaluation": {"deadlineSeconds": 5}}).start()
    job.push(0)
    assert job.tick(5).finish == ("Succeeded", "Completed")


def test_when_everyone_has_left_the_job_finishes_without_evaluation():
    job = Job(workers=1, training={"iterations": 1}).start()
    job.commit(0)
    assert job.leave(0).finish == ("Succeeded", "Completed")


def test_a_failed_job_is_not_evaluated():
    job = Job(workers=1, aggregation={"nonFiniteLimit": 1}).start()
    assert job.commit(0, finite=False).finish == ("Failed", "Diverged")


def test_a_job_that_fails_during_an_evaluation_says_nothing_after_its_end():
    job = every(1, workers=2, backups=0, deadline=600.0)
    job.push(0, 1)
    job.leave(1)
    heard = job.tick(600)
    assert heard.finish == ("Failed", "BelowQuorum")
    assert type(heard.effects[-1]).__name__ == "Finish"


def test_an_evaluation_that_runs_when_the_job_is_stopped_is_recorded_as_aborted():
    job = every(1)
    job.push(0, 1)
    assert job.ask(stop=True).aborted == [0]
    assert evaluations(job) == [(1, 0, "aborted: training has ended")]


def test_suspension_ends_an_evaluation():
    job = every(1)
    job.push(0, 1)
    assert job.ask(suspend=True).aborted == [0]


def test_an_exhausted_worker_can_still_evaluate():
    job = Job(workers=1).start()
    assert job.exhaust(0).evaluating == [0]
