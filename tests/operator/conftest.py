"""The whole operator in this process, against a small API server and a kubelet of ours."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fake_api import FakeApi
from fake_cluster import Kubelet
from operator_cluster import Cluster


@pytest.fixture
def run() -> Callable[[Callable[[Cluster], Any]], None]:
    """Run an async test body with a fresh cluster."""

    def runner(body: Callable[[Cluster], Any], **keywords: Any) -> None:
        async def whole() -> None:
            async with FakeApi() as api, Kubelet(api, **keywords) as kubelet:
                await body(Cluster(api, kubelet))

        asyncio.run(whole())

    return runner
