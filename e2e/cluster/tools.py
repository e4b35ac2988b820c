"""The programs: Debian's packages, and Go modules whose versions `tools/*/go.mod` pins.

Built once into the cache; built again only when a go.mod, go.sum or the Go release changes. Cold, on two
cores, that takes about 15 minutes; with Go's own build cache warm, a minute.
"""

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Final

from cluster.errors import ClusterError
from cluster.settings import Settings
from cluster.shell import run

SOURCES: Final = Path(__file__).parent / "tools"
MODULES: Final = ("kubernetes", "addons")
GO_VERSION: Final = (1, 26)
PACKAGES: Final = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "catatonit": "catatonit",
    "buildah": "buildah",
    "skopeo": "skopeo",
    "openssl": "openssl",
}
"""Program to Debian package."""
SEARCH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing_packages() -> list[str]:
    """Debian packages whose program is not on this machine."""
    where = os.environ.get("PATH", "") + ":" + SEARCH
    return sorted({package for program, package in PACKAGES.items() if not shutil.which(program, path=where)})


def install_packages() -> None:
    """Install what is missing, where apt-get is; else say what is missing."""
    missing = missing_packages()
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ClusterError(f"a cluster needs the programs of these Debian packages: {' '.join(missing)}")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=quiet, timeout=600)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], env=quiet, timeout=1200)


def go() -> str:
    """The Go that builds Kubernetes; its version."""
    need = f"Go {GO_VERSION[0]}.{GO_VERSION[1]} or newer"
    why = (
        "Kubernetes, CoreDNS and helm are built from their Go modules (the versions are in e2e/cluster/tools)"
    )
    if not shutil.which("go"):
        raise ClusterError(
            f"{need} is not on the PATH: {why}. Get it from your distribution or from go.dev/dl"
        )
    # Asked where the go.mod is: an older Go may be allowed to fetch the one that go.mod wants.
    version = run(["go", "env", "GOVERSION"], cwd=SOURCES / MODULES[0], check=False).strip()
    if not version or not recent_enough(version):
        raise ClusterError(f"{need} is needed, {run(['go', 'version']).strip()} is on the PATH: {why}")
    return version


def recent_enough(version: str) -> bool:
    """Whether this answer of `go env GOVERSION` will do. A development version is trusted."""
    found = re.match(r"go(\d+)\.(\d+)", version)
    return found is None or (int(found[1]), int(found[2])) >= GO_VERSION


def kubernetes_version() -> str:
    """As pinned in go.mod."""
    found = re.search(r"\sk8s\.io/kubernetes (v\S+)", (SOURCES / "kubernetes" / "go.mod").read_text())
    if not found:
        raise ClusterError("tools/kubernetes/go.mod names no k8s.io/kubernetes")
    return found[1]


def flags() -> list[str]:
    """Linker flags: small, and with the version that Kubernetes' own build would write in."""
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".", 2)
    place = "k8s.io/component-base/version"
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return [
        "-ldflags",
        " ".join(["-s -w", *(f"-X {place}.{name}={value}" for name, value in stamps.items())]),
    ]


def key(module: str, version: str) -> str:
    """What the programs of a module follow from."""
    files = [(SOURCES / module / name).read_bytes() for name in ("go.mod", "go.sum")]
    return hashlib.sha256(b"\0".join([*files, version.encode(), *map(str.encode, flags())])).hexdigest()


def build(settings: Settings) -> list[str]:
    """Build the modules whose programs are missing or outdated; their names."""
    version = go()
    settings.bin.mkdir(parents=True, exist_ok=True)
    built = []
    for module in MODULES:
        stamp = settings.bin / f".{module}"
        wanted = key(module, version)
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"cluster: building {module} (minutes, the first time)", file=sys.stderr)
            # static: some of them also run in images that hold nothing else
            environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
            command = ["go", "build", *flags(), "-o", f"{settings.bin}/", "tool"]
            run(command, cwd=SOURCES / module, env=environment, timeout=3600)
            stamp.write_text(wanted)
            built.append(module)
    return built
