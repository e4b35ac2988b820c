"""The installed operator: its pods, the one in office, its pages; and the chart that put it there."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.api import Api, ApiError, Object, name_of
from support.job import alive
from support.waiting import wait

NAMESPACE = "backupsync-system"
RELEASE = "backupsync"
ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "backupsync"
HTTP_PORT = 8080


class Operator:
    """The operator of the cluster, as the chart installs it."""

    def __init__(self, api: Api, values: Sequence[str] = ()) -> None:
        self.api = api
        self._values = list(values)

    def install(self, *values: str, chart: Path = CHART, wait_for_it: bool = True) -> None:
        """Install or upgrade the chart (or another); `values` are further `--set` of this call alone."""
        command = [
            *(os.environ.get("HELM", "helm"), "--kubeconfig", str(self.api.kubeconfig)),
            *("upgrade", "--install", RELEASE, str(chart), "--namespace", NAMESPACE, "--create-namespace"),
        ]
        for value in (*self._values, *values):
            command += ["--set", value]
        if wait_for_it:
            command += ["--wait", "--timeout", "180s"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ApiError(done.returncode, "helm", f"{' '.join(command)}: {done.stderr.strip()}")

    def restore(self) -> None:
        """Bring back what `install` without further values gives."""
        self.install()
        self.wait_until_ready()

    def deployment(self) -> Object:
        """The operator's Deployment."""
        found = self.api.list("deployment", NAMESPACE, f"app.kubernetes.io/instance={RELEASE}")
        assert len(found) == 1, f"one Deployment is expected in {NAMESPACE}: {[name_of(d) for d in found]}"
        return found[0]

    def setting(self, name: str) -> str:
        """What the operator was told by the variable BACKUPSYNC_NAME."""
        container = self.deployment()["spec"]["template"]["spec"]["containers"][0]
        return next(str(v["value"]) for v in container["env"] if v["name"] == f"BACKUPSYNC_{name}")

    def pods(self) -> list[Object]:
        """Pods of the operator that run and were not told to stop."""
        chosen = self.deployment()["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{key}={value}" for key, value in chosen.items())
        return [pod for pod in self.api.list("pod", NAMESPACE, selector) if alive(pod)]

    def holder(self) -> str:
        """Name of the pod in office, by the Lease; empty where nobody is."""
        lease = self.api.find("lease", NAMESPACE, self.setting("LEASE_NAME"))
        return str((lease or {}).get("spec", {}).get("holderIdentity") or "")

    def active(self) -> Object | None:
        """The pod in office."""
        holder = self.holder()
        return next((pod for pod in self.pods() if name_of(pod) == holder), None)

    def wait_until_ready(self) -> Object:
        """Wait until a ready pod is in office; return it."""

        def ready() -> Object | None:
            pod = self.active()
            return pod if pod is not None and is_ready(pod) else None

        return wait(ready, explain=self.explain)

    def page(self, name: str) -> str:
        """A page (metrics, healthz, readyz) of the pod in office."""
        pod = self.wait_until_ready()
        return self.api.pod_page(NAMESPACE, name_of(pod), HTTP_PORT, name).decode()

    def explain(self) -> str:
        """The pods, and who is in office."""
        return f"in office: {self.holder()!r}\n" + self.api.kubectl(
            *("--namespace", NAMESPACE, "get", "pods,leases", "-o", "wide"), check=False
        )


def is_ready(pod: Object) -> bool:
    """Whether a pod's Ready condition is True."""
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
