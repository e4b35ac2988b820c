"""HTTP of the operator: is it alive, is it ready, and its metrics. Judged by real progress, not by a port."""

from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from backupsync_operator.metrics import Metrics

STUCK_SECONDS: Final = 120.0
"""Age of the oldest key beyond which the queue counts as stuck: some requests' deadlines and a margin."""

Check = Callable[[], str]
"""Says what is wrong; empty where nothing is."""


class Health:
    """The checks of /healthz and /readyz, by name."""

    def __init__(self) -> None:
        self.alive: dict[str, Check] = {}
        self.ready: dict[str, Check] = {}

    def problems(self, checks: Mapping[str, Check]) -> list[str]:
        """What is wrong, one line each."""
        said = ((name, check()) for name, check in checks.items())
        return [f"{name}: {problem}" for name, problem in said if problem]


class HttpServer:
    """Serves /healthz, /readyz and /metrics until closed."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health, self._metrics = health, metrics
        self._runner: web.AppRunner | None = None
        self.port = 0
        """The port that was taken."""

    async def start(self, port: int) -> None:
        """Listen on every address. Raises OSError."""
        application = web.Application()
        application.router.add_get("/healthz", self._alive)
        application.router.add_get("/readyz", self._ready)
        application.router.add_get("/metrics", self._exposition)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        # IPv4 and IPv6 both, unless a free port is asked for: those of the two would differ.
        host = None if port else "127.0.0.1"
        site = web.TCPSite(self._runner, host, port, reuse_address=True)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _alive(self, _: web.Request) -> web.Response:
        return self._judge(self._health.alive)

    async def _ready(self, _: web.Request) -> web.Response:
        return self._judge(self._health.ready)

    async def _exposition(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.exposition(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    def _judge(self, checks: Mapping[str, Check]) -> web.Response:
        problems = self._health.problems(checks)
        if problems:
            return web.Response(status=503, text="\n".join(problems) + "\n")
        return web.Response(text="ok\n")
