"""Base images made from Debian packages, for a machine that reaches a package mirror but no registry.

Debian's torch is built for the CPU: 1.1 GB with everything it needs, against 5 GB of CUDA wheels.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from images.tool import Tool, ToolError

RELEASE: Final = "trixie"
PYTHON: Final = f"localhost/backupsync-base-python:{RELEASE}"
TORCH: Final = f"localhost/backupsync-base-torch:{RELEASE}"
_PACKAGES: Final = {
    PYTHON: ("essential", "python3,ca-certificates"),
    TORCH: ("minbase", "python3,python3-pip,python3-setuptools,python3-venv,python3-torch,ca-certificates"),
}
_LEFT_OUT: Final = (
    "/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/include/*", "/usr/lib/*/*.a"
)  # fmt: skip
"""Nothing of it is needed to run: headers and static libraries of torch are a tenth of it all."""
_DOCKERFILE: Final = """\
FROM scratch
ADD base.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
CMD ["python3"]
"""


def can_be_made() -> bool:
    """Whether bases can be made here."""
    return shutil.which("mmdebstrap") is not None


def make(tool: Tool, base: str) -> None:
    """Make PYTHON or TORCH, unless it is there. Raises ToolError."""
    if tool.has(base):
        return
    variant, packages = _PACKAGES[base]
    with tempfile.TemporaryDirectory() as place:
        context = Path(place)
        command = ["mmdebstrap", "--quiet", f"--variant={variant}", f"--include={packages}"]
        command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
        command += [RELEASE, str(context / "base.tar")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolError(f"mmdebstrap could not make {base}: {done.stderr.strip()}")
        (context / "Dockerfile").write_text(_DOCKERFILE, encoding="utf-8")
        tool.build(context / "Dockerfile", context, base, {})
