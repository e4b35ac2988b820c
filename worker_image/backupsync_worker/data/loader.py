"""Processes that read examples ahead of the computation.

They come from a forkserver: no socket, lock or CUDA context of the worker is inherited, and a process ends by
itself when the worker does, even by SIGKILL (its pipe closes). Data set and examples travel by pickle within
this machine and this user; tensors as their bytes, without shared memory.
"""

import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FunctionType, ModuleType
from typing import Any

import torch
from setproctitle import setproctitle
from torch import Tensor

from backupsync.errors import ProgramError

Fetch = Callable[[Any], Any]
"""Turns a task into examples; runs in a loader process and must be picklable."""


class LoaderDied(RuntimeError):  # noqa: N818 -- what happened
    """A loader process ended without an answer, as when the kernel's out-of-memory killer took it."""


class LoaderPool:
    """`processes` processes that run `fetch` on tasks, each behind a thread that waits for it.

    Raises ProgramError when `fetch` (with the data set in it) cannot be pickled.
    """

    def __init__(self, fetch: Fetch, processes: int) -> None:
        payload = _dump_program(fetch)
        context = multiprocessing.get_context("forkserver")
        # In force when this process is the first to need the forkserver: then children need not import torch.
        context.set_forkserver_preload([__name__])
        self._idle: SimpleQueue[_Child] = SimpleQueue()
        self._children = [_Child(context, payload) for _ in range(processes)]
        for child in self._children:
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="loader")

    def submit(self, task: Any) -> "Future[Any]":
        """Start `fetch(task)` in the next idle process."""
        return self._threads.submit(self._run, task)

    def close(self) -> None:
        """End every process and thread, whatever they are doing."""
        for child in self._children:
            child.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.join()

    def _run(self, task: Any) -> Any:
        child = self._idle.get()
        try:
            return child.ask(task)
        finally:
            self._idle.put(child)


class _Child:
    """One loader process and our end of its pipe."""

    def __init__(self, context: multiprocessing.context.ForkServerContext, payload: bytes) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True, name="loader")
        with _main_hidden():
            self._process.start()
        theirs.close()
        self._payload: bytes | None = payload

    def ask(self, task: Any) -> Any:
        try:
            if self._payload is not None:
                self._pipe.send_bytes(self._payload)
                self._payload = None
            self._pipe.send_bytes(_dumps(task))
            error, value, trace = pickle.loads(self._pipe.recv_bytes())  # noqa: S301 -- our own child
        except (EOFError, OSError) as gone:
            self._process.join(timeout=5)
            raise LoaderDied(
                f"loader process {self._process.pid} ended with exit code {self._process.exitcode} while "
                "reading; if memory ran out, lower spec.training.loader.workers"
            ) from gone
        if error is None:
            return value
        error.add_note(f"raised in a loader process:\n{trace}")
        raise error

    def stop(self) -> None:
        if self._process.is_alive():
            self._process.terminate()

    def join(self) -> None:
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self._pipe.close()


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep multiprocessing from importing `__main__` in the child: a script would join the job again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(pipe: Connection) -> None:
    """Body of a loader process: answer tasks until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setproctitle("backupsync loader")
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, name="watch-worker", daemon=True).start()
    try:
        fetch: Fetch | None = None
        payload = pipe.recv_bytes()
        while True:
            task = pickle.loads(pipe.recv_bytes())  # noqa: S301 -- our own parent
            try:
                fetch = fetch or pickle.loads(payload)  # noqa: S301
                answer = _dumps((None, fetch(task), None))
            except Exception as error:  # whatever the data set raises is the parent's to see
                answer = _dumps((_portable(error), None, traceback.format_exc()))
            pipe.send_bytes(answer)
    except (EOFError, OSError):
        return


def _end_with_parent() -> None:
    """End at once when the worker does, even in the middle of a read."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """Return `error` if it survives pickling, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:  # exceptions pickle in their own ways
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _dump_program(fetch: Fetch) -> bytes:
    try:
        return _dumps(fetch)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ProgramError(
            f"dataset: cannot be sent to loader processes ({error}); define its classes and functions at the "
            "top level of a module beside the script, or set spec.training.loader.workers to 0"
        ) from None


class _Pickler(pickle.Pickler):
    """Pickles plain CPU tensors as their bytes, and nothing of a script: loader processes never run it."""

    def reducer_override(self, obj: Any) -> Any:
        """Return how to rebuild `obj`, or leave it to pickle."""
        if isinstance(obj, type | FunctionType) and obj.__module__ == "__main__":
            raise pickle.PicklingError(f"{obj.__qualname__} is defined in the script itself")
        plain = type(obj) is Tensor and obj.device.type == "cpu" and obj.layout == torch.strided
        if not plain or obj.is_quantized or obj.requires_grad or obj.is_neg() or obj.is_conj():
            return NotImplemented
        data = obj.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if obj.numel() else b""
        return _rebuild, (bytearray(data), obj.dtype, tuple(obj.shape))


def _dumps(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def _rebuild(data: bytearray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).view(shape)
