"""The traces that a job's aggregators have written, read out of their pods or off the shared disk."""

import re
import tempfile
from pathlib import Path

from backupsync.trace import Line, read_trace
from support.api import name_of
from support.job import Job, alive


def read_traces(job: Job) -> dict[int, list[Line]]:
    """Return the lines of every epoch that the running aggregator's directory holds, by epoch."""
    pod = job.aggregator()
    assert pod is not None, "the job has no aggregator"
    assert alive(pod), f"{name_of(pod)} does not run: read its traces off the disk"
    folder = str(Path(job.launch(pod)["trace_file"]).parent)
    # One `cat` per file, with its name before it: the traces of other epochs may lie beside it.
    script = f'for f in {folder}/trace-epoch-*.jsonl; do echo "== $f"; cat "$f"; done'
    command = ("exec", name_of(pod), "-c", "aggregator", "--", "sh", "-c", script)
    text = job.api.kubectl("--namespace", job.namespace, *command)
    parts = re.split(r"^== .*-(\d+)\.jsonl\n", text, flags=re.MULTILINE)[1:]
    return {int(epoch): _parsed(lines) for epoch, lines in zip(parts[::2], parts[1::2], strict=True)}


def read_directory(folder: Path) -> dict[int, list[Line]]:
    """Return the lines of every epoch that a checkpoint directory holds, by epoch."""
    return {int(path.stem[-8:]): _parsed(path.read_text()) for path in folder.rglob("trace-epoch-*.jsonl")}


def _parsed(text: str) -> list[Line]:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(text)
        file.flush()
        return list(read_trace(Path(file.name)))
