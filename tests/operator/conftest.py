"""The whole operator in this process, against a small API server and a kubelet of ours."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fake_api import FakeApi
from fake_cluster import Kubelet
from operator_cluster import Cluster


@pytest.fixture
def run() -> Callable[..., Any]:
    """Run an async test body with a fresh cluster."""

    def runner(body: Callable[[Cluster], Any], **keywords: Any) -> Any:
        async def whole() -> Any:
            async with FakeApi() as api, Kubelet(api, **keywords) as kubelet:
                return await body(Cluster(api, kubelet))

        return asyncio.run(whole())

    return runner
