"""One run with N = 2 and b = 1 in which a worker is killed, another frozen, and strangers knock."""

import secrets
import signal
from typing import NamedTuple

import pytest
from engine_job import EngineJob

from backupsync.exits import Exit
from backupsync.trace import Gradient, Membership


class Story(NamedTuple):
    """What happened, by the number of updates that had been applied."""

    job: EngineJob
    killed_at: int
    without: int
    """Updates in a row without the frozen worker, when it was continued."""
    continued_at: int
    knocked_at: int
    exits: dict[str, int]
    counted: dict[str, float]
    shown: dict[str, str]
    frozen_for_good_at: int


@pytest.fixture(scope="module")
def story(module_jobs) -> Story:
    job: EngineJob = module_jobs("worker-faults").write(
        program={"entrypoint": "faulty:Uneven"},
        aggregation={
            "workers": 2,
            "backupWorkers": 1,
            "wire": {"transport": "Tcp", "heartbeatSeconds": 0.5, "timeoutSeconds": 3},
        },
        training={"iterations": 100_000},
    )
    job.start()
    job.wait(lambda: len(job.live()) == 3)
    killed_at = job.wait_for_more(1)
    job.kill(job.worker_pid(0))
    job.wait_until_accepted(0, 2)
    job.kill(job.worker_pid(1), signal.SIGSTOP)
    job.wait(lambda: updates_without(job, 1) >= 10)
    without = updates_without(job, 1)
    job.kill(job.worker_pid(1), signal.SIGCONT)
    continued_at = job.traced_iterations()
    job.wait_until_accepted(1, 1, since=continued_at)
    knocked_at, exits, counted, shown = knock(job)
    frozen_for_good_at = job.wait_for_more(1)
    job.kill(job.worker_pid(2), signal.SIGSTOP)
    job.wait_until_accepted(2, 2)
    assert job.stop() == 130, job.explain()
    return Story(job, killed_at, without, continued_at, knocked_at, exits, counted, shown, frozen_for_good_at)


def updates_without(job: EngineJob, rank: int) -> int:
    """Updates since the last one that a gradient of `rank` was part of."""
    last = [g.iteration for g in job.lines(Gradient) if (g.rank, g.outcome) == (rank, "accepted")]
    return job.traced_iterations() - 1 - max(last, default=-1)


def knock(job: EngineJob) -> tuple[int, dict[str, int], dict[str, float], dict[str, str]]:
    """Send in a second process of a worker, one of an attempt that is over, and one with another key."""
    wrong = job.directory / "wrong-key"
    wrong.write_text(secrets.token_bytes(32).hex())
    before = job.traced_iterations()
    processes = {
        "duplicate": job.start_process("worker", job.worker_launch(1, 1), "duplicate.log"),
        "revenant": job.start_process("worker", job.worker_launch(0, 1), "revenant.log"),
        "stranger": job.start_process("worker", job.worker_launch(2, 1, key_file=str(wrong)), "stranger.log"),
    }
    exits = {name: job.exit_code(process) for name, process in processes.items()}
    codes = ("duplicate", "not-a-member", "wrong-key")
    counted = {code: job.metric(f'backupsync_refused_messages_total{{code="{code}"}}') for code in codes}
    status = job.asked()
    assert status is not None
    return before, exits, counted, {refusal.peer: refusal.code for refusal in status.refusals}


def test_with_a_backup_every_iteration_averages_its_n_whatever_happens(story: Story) -> None:
    updates = story.job.updates()
    assert [u.iteration for u in updates] == list(range(len(updates)))
    assert {(u.required, u.accepted, u.note) for u in updates} == {(2, 2, None)}


def test_no_iteration_waits_for_the_successor_of_a_killed_worker(story: Story) -> None:
    joined = [m for m in story.job.lines(Membership) if (m.rank, m.attempt) == (0, 2)]
    assert joined[0].iteration > story.killed_at


def test_training_goes_on_beside_a_frozen_worker_which_is_accepted_again_once_it_continues(
    story: Story,
) -> None:
    assert story.without >= 10
    assert story.job.accepted(1, 1, since=story.continued_at)


def test_a_worker_that_stays_frozen_is_replaced(story: Story) -> None:
    assert story.job.accepted(2, 2, since=story.frozen_for_good_at)
    assert not [p for p in story.job.processes().values() if p.status() == "stopped"]


def test_a_second_process_of_a_worker_is_refused_as_a_duplicate(story: Story) -> None:
    assert story.exits["duplicate"] == Exit.FENCED
    assert story.counted["duplicate"] >= 1
    assert story.shown["rank 1 attempt 1"] == "duplicate"


def test_a_revenant_of_an_attempt_that_was_replaced_is_refused(story: Story) -> None:
    assert story.exits["revenant"] == Exit.FENCED
    assert story.counted["not-a-member"] >= 1
    assert story.shown["rank 0 attempt 1"] == "not-a-member"


def test_a_stranger_with_another_key_is_refused(story: Story) -> None:
    assert story.exits["stranger"] == Exit.CONFIGURATION
    assert story.counted["wrong-key"] >= 1
    assert story.shown["rank 2 attempt 1"] == "wrong-key"


def test_training_goes_on_while_strangers_knock(story: Story) -> None:
    assert story.frozen_for_good_at > story.knocked_at
    assert story.job.accepted(1, 1, since=story.knocked_at)
    assert story.job.accepted(0, 2, since=story.knocked_at)
