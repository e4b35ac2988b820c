"""docker, podman or buildah: whichever is there, seen as one thing."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

CERTIFICATES: Final = Path("/etc/ssl/certs")
"""Those of this machine hold while an image is built: behind a proxy of its own there is no other way out."""
_BUILD: Final = {
    "docker": ["build"],
    "podman": ["build", "--layers"],
    "buildah": ["bud", "--layers", "--network", "host"],
}
_BUILDAH: Final = {"STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot"}
"""No daemon, and no privilege that a container or an old cgroup hierarchy would refuse."""


class ToolError(Exception):
    """No tool, or one that failed."""


class Tool:
    """A tool that builds images. Every method raises ToolError."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def found(cls, wanted: str = "") -> "Tool":
        """Return the `wanted` tool, or the first that works: docker without its daemon does not."""
        if wanted and wanted not in _BUILD:
            raise ToolError(f"BUILDER = {wanted!r}: must be one of {', '.join(_BUILD)}")
        problems = []
        for tool in map(cls, [wanted] if wanted else _BUILD):
            try:
                tool.check()
            except ToolError as error:
                problems.append(f"{tool.name}: {error}")
            else:
                return tool
        raise ToolError("no tool to build images works here\n  " + "\n  ".join(problems))

    def check(self) -> None:
        """Raise ToolError unless the tool is installed and works."""
        if not shutil.which(self.name):
            raise ToolError("is not installed")
        self._run("version")  # asks the daemon too, where there is one

    def build(self, dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
        """Build `dockerfile` in `context`; what has not changed comes from the cache of layers."""
        command = [*_BUILD[self.name], "--quiet", "--file", str(dockerfile), "--tag", tag]
        if self.name != "docker" and CERTIFICATES.is_dir():
            command += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        self._run(*command, str(context))

    def push(self, tag: str) -> None:
        """Send an image to its registry."""
        self._run("push", "--quiet", tag)

    def size(self, tag: str) -> str:
        """Return how large an image is, layers shared with others included, in the tool's words."""
        return self._run("images", "--format", "{{.Size}}", tag).splitlines()[0]

    def has(self, tag: str) -> bool:
        """Whether an image is in the tool's storage."""
        inspect = ["inspect", "--type", "image"] if self.name == "buildah" else ["image", "inspect"]
        try:
            self._run(*inspect, tag)
        except ToolError:
            return False
        return True

    def _run(self, *arguments: str) -> str:
        environment = {**_BUILDAH, **os.environ} if self.name == "buildah" else None
        done = subprocess.run(
            [self.name, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[-3000:]
            raise ToolError(f"{self.name} {' '.join(arguments)}: {said}")
        return done.stdout
