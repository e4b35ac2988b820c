"""Keys, certificates and kubeconfigs of the cluster, by openssl. They live as long as the cluster's state."""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from cluster.settings import DOMAIN, Settings
from cluster.shell import run

CURVE: Final = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
DAYS: Final = "365"
_serial = threading.Lock()


class Identity(NamedTuple):
    """One certificate: what it is called, who it says it is, where it is valid."""

    file: str
    subject: str
    names: tuple[str, ...] = ()
    authority: str = "ca"


def identities(settings: Settings) -> list[Identity]:
    """Every certificate of the control plane; the group `system:masters` may do anything."""
    addresses = settings.addresses
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    hosts = [f"DNS:{name}" for name in [*names, f"kubernetes.default.svc.{DOMAIN}"]]
    hosts += [f"IP:{ip}" for ip in (addresses.control_plane, addresses.api_service, "127.0.0.1")]
    return [
        Identity("apiserver", "/CN=kube-apiserver", tuple(hosts)),
        Identity("apiserver-kubelet", "/O=system:masters/CN=apiserver-kubelet"),
        Identity("front-proxy", "/CN=front-proxy", (), "front-proxy-ca"),
        Identity("admin", "/O=system:masters/CN=admin"),
        Identity("controller-manager", "/CN=system:kube-controller-manager"),
        Identity("scheduler", "/CN=system:kube-scheduler"),
        Identity("kube-proxy", "/CN=system:kube-proxy"),
    ]


def make(settings: Settings) -> None:
    """Everything that the control plane needs, unless it is there."""
    done = settings.pki / "done"
    if done.exists():
        return
    settings.pki.mkdir(parents=True, exist_ok=True)
    settings.pki.chmod(0o700)
    for name in ("ca", "front-proxy-ca"):
        _authority(settings.pki, name)
    run(["openssl", "genrsa", "-out", settings.pki / "service-accounts.key", "2048"])
    wanted = identities(settings)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda identity: _certificate(settings.pki, identity), wanted))
    for name in ("admin", "controller-manager", "scheduler", "kube-proxy"):
        kubeconfig(settings, name, settings.pki / f"{name}.kubeconfig")
    done.touch()


def node(settings: Settings, name: str, address: str) -> str:
    """Certificate of a node, for its kubelet as client and as server; its file name."""
    file = name
    if not (settings.pki / f"{file}.crt").exists():
        who = f"/O=system:nodes/CN=system:node:{name}"
        _certificate(settings.pki, Identity(file, who, (f"DNS:{name}", f"IP:{address}")))
    return file


def _authority(place: Path, name: str) -> None:
    extensions = ["-addext", "basicConstraints=critical,CA:TRUE"]
    extensions += ["-addext", "keyUsage=critical,keyCertSign,digitalSignature"]
    output: list[str | Path] = ["-keyout", place / f"{name}.key", "-out", place / f"{name}.crt"]
    run(["openssl", "req", "-x509", *CURVE, "-days", DAYS, "-subj", f"/CN={name}", *output, *extensions])


def _certificate(place: Path, identity: Identity) -> None:
    key, request = place / f"{identity.file}.key", place / f"{identity.file}.csr"
    run(["openssl", "req", *CURVE, "-subj", identity.subject, "-keyout", key, "-out", request])
    extensions = place / f"{identity.file}.ext"
    lines = ["basicConstraints=CA:FALSE", "keyUsage=critical,digitalSignature"]
    lines += ["extendedKeyUsage=clientAuth,serverAuth"]
    lines += [f"subjectAltName={','.join(identity.names)}"] if identity.names else []
    extensions.write_text("\n".join(lines))
    issuer: list[str | Path] = [
        "-CA",
        place / f"{identity.authority}.crt",
        "-CAkey",
        place / f"{identity.authority}.key",
    ]
    serial = ["-set_serial", f"0x{_next_serial(place):x}"]
    output: list[str | Path] = ["-days", DAYS, "-extfile", extensions, "-out", place / f"{identity.file}.crt"]
    run(["openssl", "x509", "-req", "-in", request, *issuer, *serial, *output])
    request.unlink()
    extensions.unlink()


def _next_serial(place: Path) -> int:
    with _serial:
        file = place / "serial"
        number = int(file.read_text()) + 1 if file.exists() else 1
        file.write_text(str(number))
        return number


def kubeconfig(settings: Settings, identity: str, target: Path) -> None:
    """A kubeconfig with everything in it, as JSON (which is YAML)."""

    def data(file: str) -> str:
        return base64.b64encode((settings.pki / file).read_bytes()).decode()

    server = f"https://{settings.addresses.control_plane}:6443"
    user = {"client-certificate-data": data(f"{identity}.crt"), "client-key-data": data(f"{identity}.key")}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": settings.name,
                "cluster": {"server": server, "certificate-authority-data": data("ca.crt")},
            }
        ],
        "users": [{"name": identity, "user": user}],
        "contexts": [{"name": settings.name, "context": {"cluster": settings.name, "user": identity}}],
        "current-context": settings.name,
    }
    target.touch(mode=0o600)
    target.write_text(json.dumps(content, indent=1))
