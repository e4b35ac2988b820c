"""`make e2e`, `make e2e-full`: a cluster, the images, the chart, the tests; what is left of it is out/e2e/.

With KUBECONFIG and REGISTRY in the environment it uses that cluster, whose current context must be the one
that E2E_CONTEXT names; images are then expected in that registry under TAG. KEEP=1 leaves everything running.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cluster import Cluster, ClusterError
from cluster.clock import Clock

ROOT = Path(__file__).resolve().parents[1]
E2E = ROOT / "e2e"
OUT = ROOT / "out" / "e2e"
IMAGES = ("operator", "worker", "aggregator")
SHARD_SECONDS = 840
NAMESPACE, RELEASE = "backupsync-system", "backupsync"


class RunError(Exception):
    """The run cannot go on; the message says why and what helps."""


def main() -> int:
    """Run what was asked for; the exit code."""
    options = _options()
    clock = Clock()
    signal.signal(signal.SIGTERM, _interrupted)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    try:
        with _foreign() if _is_foreign() else _own(clock):
            with clock.part("chart"):
                _install()
            with clock.part("tests"):
                return _pytest(options)
    except (RunError, ClusterError, subprocess.CalledProcessError) as error:
        print(f"e2e: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("e2e: interrupted", file=sys.stderr)
        return 130
    finally:
        print(f"How long each part took (parts overlap):\n{clock.table()}")
        (OUT / "parts.txt").write_text(clock.table() + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="every test")
    parser.add_argument("--shard", metavar="COMMIT", help="also the share of the full tier that it chooses")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --")
    return parser.parse_args()


def _interrupted(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


# ---- the cluster


@contextmanager
def _own(clock: Clock) -> Iterator[None]:
    """The project's own cluster with the images; as it was found afterwards."""
    for name in ("KUBECONFIG", "REGISTRY"):
        if os.environ.pop(name, None):
            print(f"{name} alone is not looked at: the project's own cluster is used")
    cluster = Cluster.here()
    found = cluster.is_running()
    try:
        cluster.up(clock=clock)
        os.environ |= {
            "KUBECONFIG": str(cluster.settings.kubeconfig),
            "PATH": f"{cluster.settings.bin}:{os.environ['PATH']}",
            "E2E_CLUSTER": str(cluster.settings.home),
        }
        with clock.part("images"):
            subprocess.run(["make", "images"], cwd=ROOT, check=True)
        yield
    finally:
        shutil.copytree(cluster.settings.log, OUT / "cluster", dirs_exist_ok=True)
        if os.environ.get("KEEP") or found:
            print(f"The cluster goes on: export KUBECONFIG={cluster.settings.kubeconfig}")
        else:
            with clock.part("down"):
                cluster.down()


def _is_foreign() -> bool:
    return bool(os.environ.get("KUBECONFIG") and os.environ.get("REGISTRY"))


@contextmanager
def _foreign() -> Iterator[None]:
    """Somebody else's cluster: only if its name was said, and as it was found but for the CRD afterwards."""
    context = _output("kubectl", "config", "current-context")
    allowed = os.environ.get("E2E_CONTEXT", "")
    if context != allowed:
        raise RunError(
            f"the current context of {os.environ['KUBECONFIG']} is {context!r}, E2E_CONTEXT is {allowed!r}: "
            f"these tests install a chart and delete pods; set E2E_CONTEXT={context} if they may"
        )
    os.environ["E2E_CLUSTER"] = ""
    try:
        yield
    finally:
        if not os.environ.get("KEEP"):
            uninstall = ("uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
            subprocess.run(["helm", *uninstall], check=False)
            subprocess.run(["kubectl", "delete", "namespace", "-l", "backupsync.dev/e2e=true"], check=False)


def _tag() -> str:
    said = os.environ.get("TAG")
    return said or _output(sys.executable, "-c", "import backupsync; print(backupsync.__version__)")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


# ---- what is run on it


def _values() -> list[str]:
    """`--set` values of the chart: where the images are, and progress often enough to be waited for."""
    registry = (os.environ.get("REGISTRY") if _is_foreign() else None) or "localhost"
    values = ["operator.progressSeconds=3"]
    for image, place in zip(IMAGES, ("image", "worker.image", "aggregator.image"), strict=True):
        values += [f"{place}.repository={registry}/backupsync-{image}", f"{place}.tag={_tag()}"]
    return values


def _install() -> None:
    """Install the chart as a user does."""
    os.environ["E2E_VALUES"] = json.dumps(_values())
    command = ["helm", "upgrade", "--install", RELEASE, str(ROOT / "charts" / "backupsync")]
    command += ["--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "180s"]
    for value in _values():
        command += ["--set", value]
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        for words in (
            ("get", "pods,events", "-o", "wide"),
            ("describe", "pods"),
            ("logs", "-l", f"app.kubernetes.io/instance={RELEASE}"),
        ):
            subprocess.run(["kubectl", "--namespace", NAMESPACE, *words], check=False)
        raise RunError("the chart did not come up: see above") from error


def _pytest(options: argparse.Namespace) -> int:
    """Run the tests; a first Ctrl-C lets pytest tidy up."""
    os.environ["E2E_OUT"] = str(OUT)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        str(E2E / "pytest.ini"),
        f"--junitxml={OUT / 'junit.xml'}",
    ]
    command += [f"--rootdir={E2E}", "--tb=short", "--durations=0", "-v", *_tier(options), *options.pytest]
    with subprocess.Popen(command, cwd=E2E) as running:
        try:
            return running.wait()
        except KeyboardInterrupt:
            running.send_signal(signal.SIGINT)
            running.wait()
            raise


def _tier(options: argparse.Namespace) -> Sequence[str]:
    if options.full:
        return ()
    if options.shard:
        return (f"--shard={options.shard}:{SHARD_SECONDS}",)
    return ("-m", "not full")


if __name__ == "__main__":
    sys.exit(main())
