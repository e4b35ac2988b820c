"""The traces that a job's aggregators have written, read out of their pods or off the shared disk."""

import re
import tempfile
from pathlib import Path

from backupsync.trace import Header, Line, Resumed, read_trace
from support.api import name_of
from support.job import Job, alive, attempt_of


def read_traces(job: Job) -> dict[int, list[Line]]:
    """Return the lines of every epoch that the running aggregator's directory holds, by epoch."""
    pod = job.aggregator()
    assert pod is not None, "the job has no aggregator"
    assert alive(pod), f"{name_of(pod)} does not run: read its traces off the disk"
    folder = str(Path(job.launch(pod)["trace_file"]).parent)
    # One `cat` per file, with its name before it: the traces of other epochs may lie beside it.
    script = f'for f in {folder}/trace*.jsonl; do echo "== $f"; cat "$f"; done'
    command = ("exec", name_of(pod), "-c", "aggregator", "--", "sh", "-c", script)
    text = job.api.kubectl("--namespace", job.namespace, *command)
    parts = re.split(r"^== .*\n", text, flags=re.MULTILINE)
    return _by_epoch([part for part in parts if part], attempt_of(pod))


def read_directory(folder: Path) -> dict[int, list[Line]]:
    """Return the lines of every epoch that a checkpoint directory holds, by epoch."""
    texts = [path.read_text() for path in sorted(folder.rglob("trace*.jsonl"))]
    return _by_epoch(texts, 1)


def _by_epoch(texts: list[str], newest: int) -> dict[int, list[Line]]:
    """Cut traces where a Resumed line begins a later epoch; what stands before the first is epoch 1's."""
    epochs: dict[int, list[Line]] = {}
    for text in texts:
        lines = _parsed(text)
        first = next((line for line in lines if not isinstance(line, Header)), None)
        epoch = first.epoch if isinstance(first, Resumed) else min(newest, 1)
        for line in lines:
            if isinstance(line, Resumed):
                epoch = line.epoch
            epochs.setdefault(epoch, []).append(line)
    return epochs


def _parsed(text: str) -> list[Line]:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(text)
        file.flush()
        return list(read_trace(Path(file.name)))
