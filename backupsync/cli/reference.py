"""The reference pages of the command line and of the Python client: `python -m backupsync.cli.reference`.

They are made from the commands, the client and its structures; a test fails when a committed page differs.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import typer.main

from backupsync.cli.app import app
from backupsync.cli.options import PANEL
from backupsync.cluster import client, errors, types
from backupsync.spec.reference import struct_sections

_MADE: Final = "<!-- Made by `python -m backupsync.cli.reference`; do not edit. -->\n\n"
_CLI: Final = """# The command line

## Where a command works

`run`, `validate` and `plot` work here. `submit`, `wait` and `get-model` work on a cluster: that of the
kubeconfig's current context, unless `--context` or `--kubeconfig` names another. Every other command works on
either, and must be told which; it is never guessed:

| said | the job is |
|---|---|
| `--local` (or `--state-dir`, with it) | processes that `backupsync run` started on this machine |
| `--cluster`, `--context CONTEXT`, `--kubeconfig FILE` or `-n NAMESPACE` | on that cluster |
| `BACKUPSYNC_TARGET=cluster` or `=local` in the environment | there, unless an option says otherwise |

The kubeconfig is found as by kubectl: `$KUBECONFIG` (several files are merged), else `~/.kube/config`; in a
pod without one, its service account. The namespace is the context's, unless `-n` names another.

## Exit codes

| code | means |
|---|---|
| 0 | done; for `run`, `submit --follow` and `wait`: the job has come to where it should |
| 1 | the job failed, or what `wait` waits for can no longer happen |
| 2 | bad input, or no way to the job: the message names what is wrong, and the remedy |
| 124 | `wait --timeout`: not in time |
| 130 | Ctrl-C |

## JSON

`-o json` prints one document to stdout; messages go to stderr. On a cluster:

| command | prints |
|---|---|
| `submit`, `status`, `wait`, `scale`, `suspend`, `resume` | a [`Job`](python-client.md#job), in camelCase |
| `list` | a list of [`Job`](python-client.md#job) |
| `events` | a list of [`Event`](python-client.md#event), oldest first |
| `logs` | one [`LogLine`](python-client.md#logline) a line |
| `explain` | `{"job": NAME, "reasons": [LINE, …]}` |
| `get-model` | `{"job": NAME, "files": [PATH, …]}` |
| `delete` | `{"job": NAME, "deleted": true}` |
| `metrics` | targets for Prometheus' `file_sd` |

With `--local`: `list` prints `[{"name", "state", "iteration", "pid"}, …]`, `events`
`[{"time", "kind", "reason", "message", "detail"}, …]`, `status` the planner's memory with `job`, `uid`, `pid`
and `state`, `scale`, `suspend` and `resume` the manifest as it is now; the rest is as above.
"""
_CLIENT: Final = """# The Python client

`pip install 'backupsync[cluster]'`, and then:

```python
from pathlib import Path

from backupsync.cluster import Client, Ended

with Client(namespace="team") as client:
    client.submit("examples/digits.yaml")
    try:
        job = client.wait("digits", timeout=1800)
    except Ended as error:
        print(error, *client.explain("digits"), sep="\\n")
        raise
    print(job.progress.evaluation if job.progress else {})
    client.get_model("digits", Path("out"), averaged=True)
```

It is synchronous, typed, and safe to use from several threads. It finds the cluster as the
[command line](cli.md#where-a-command-works) does, which does nothing that this client cannot.
"""
_HEAD: Final = "| option | default | what |\n|---|---|---|\n"


def pages() -> dict[str, str]:
    """Return the text of every page by its file name in docs/reference."""
    python = "\n".join([_CLIENT, *_methods(), *_errors(), *struct_sections(types)])
    return {"cli.md": _MADE + "\n".join([_CLI, *_commands()]), "python-client.md": _MADE + python}


def _commands() -> Iterator[str]:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
        usage = " ".join(["backupsync", name, *arguments])
        options = [p for p in command.params if p.param_type_name == "option"]
        where = [p for p in options if p.rich_help_panel == PANEL]
        rows = "".join(_row(p) for p in options if p not in where)
        table = f"\n{_HEAD}{rows}" if rows else ""
        named = ", ".join(f"`{p.opts[-1]}{' ' + p.metavar if p.metavar else ''}`" for p in where)
        place = f"\nWhere: {named}.\n" if where else ""
        yield f"## `{usage}`\n\n{inspect.cleandoc(command.help)}\n{table}{place}"


def _row(parameter: Any) -> str:
    usual = parameter.default
    shown = f"`{getattr(usual, 'value', usual)}`" if usual not in (None, False, True) else ""
    return f"| {_spelled(parameter)} | {shown} | {parameter.help} |\n"


def _spelled(parameter: Any) -> str:
    """The option as it is typed, such as `-n`, `--namespace NAMESPACE`."""
    *others, last = parameter.opts
    metavar = f" {parameter.metavar}" if parameter.metavar else ""
    return ", ".join([*(f"`{name}`" for name in others), f"`{last}{metavar}`"])


def _methods() -> Iterator[str]:
    """Yield the public methods of `Client`, from its source: annotations as they are written there."""
    yield "## `Client`\n"
    [node] = [n for n in ast.parse(inspect.getsource(client)).body if isinstance(n, ast.ClassDef)]
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or method.name in ("__enter__", "__exit__"):
            continue
        if method.name.startswith("_") and method.name != "__init__":
            continue
        yield f"### `{_signature(method)}`\n\n{ast.get_docstring(method)}\n"


def _signature(method: ast.FunctionDef) -> str:
    if method.decorator_list:
        return method.name  # a property
    method.args.args = [argument for argument in method.args.args if argument.arg != "self"]
    if method.name == "__init__":
        return f"Client({ast.unparse(method.args)})"
    returns = f" -> {ast.unparse(method.returns)}" if method.returns else ""
    return f"{method.name}({ast.unparse(method.args)}){returns}".removesuffix(" -> None")


def _errors() -> Iterator[str]:
    yield "## Errors\n\nEach is a `ClusterError`, and that a `backupsync.errors.BackupSyncError`.\n"
    rows = (
        f"| `{name}` | {inspect.cleandoc(kind.__doc__ or '')} |\n"
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.ClusterError)
    )
    yield "| error | means |\n|---|---|\n" + "".join(rows)


def main(directory: Path, say: Callable[[str], object] = sys.stdout.write) -> None:
    """Write every page into `directory`."""
    for name, text in pages().items():
        (directory / name).write_text(text, encoding="utf-8")
        say(f"{directory / name}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/reference"))
