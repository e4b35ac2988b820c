"""A resumed run is reported as what stands: iterations lost with an aggregator are not counted."""

from backupsync.report import from_trace
from backupsync.trace import Ended, Evaluation, Gradient, Header, Iteration, Line, Resized, Resumed


def lines() -> list[Line]:
    manifest = {"spec": {"aggregation": {"mode": "Sync", "workers": 1, "backupWorkers": 0}}}
    header = Header(job="d", uid="u", manifest=manifest, started=0, initial_digest="", threads=1)

    def iteration(number: int, at: float, loss: float) -> list[Line]:
        return [
            Gradient(
                at=at, iteration=number, rank=0, attempt=1, ticket=number, outcome="accepted", loss=loss,
            ),
            Iteration(
                at=at, iteration=number, required=1, accepted=1, live=1, seconds=1.0,
                examples=10 * (number + 1), loss=loss,
            ),
            Evaluation(at=at, iteration=number + 1, rank=0, metrics={"loss": loss}),
        ]  # fmt: skip

    first = [line for i in range(4) for line in iteration(i, i + 1.0, 9.0)]
    again = [line for i in range(2, 4) for line in iteration(i, i + 11.0, 1.0)]
    interrupted = Ended(at=4.5, iteration=4, outcome="Suspended", reason="Stopped")
    resized = Resized(at=4.0, iteration=3, required=5, backups=0)
    return [header, *first, resized, interrupted, Resumed(at=10, epoch=2, iteration=2, next_ticket=2), *again]


def test_lost_iterations_are_counted_once():
    report = from_trace(lines())
    assert report.iterations == 4
    assert report.examples == 40
    assert report.workers[0].accepted == 4
    assert report.resumes == 1
    assert report.coverage == 1.0


def test_the_time_they_cost_is_counted():
    assert from_trace(lines()).wall_seconds == 14.0


def test_losses_and_evaluations_are_those_of_the_epoch_that_stands():
    report = from_trace(lines())
    assert [point.loss for point in report.curve] == [9.0, 9.0, 1.0, 1.0]
    assert [e.iteration for e in report.evaluations] == [1, 2, 3, 4]
    assert report.final == {"loss": 1.0}


def test_an_end_before_the_resume_is_not_the_end():
    assert from_trace(lines()).outcome is None


def test_a_job_that_lost_even_its_first_iteration_began_when_it_began():
    header, *rest = lines()
    lost_all = [*rest[:3], Resumed(at=10, epoch=2, iteration=0, next_ticket=0)]
    again = [line for line in rest[:3] if isinstance(line, Iteration)]
    late = [Iteration(**{f: getattr(again[0], f) for f in again[0].__struct_fields__} | {"at": 12.0})]
    assert from_trace([header, *lost_all, *late]).wall_seconds == 12.0
