"""The whole operator in this process, against a small API server and a kubelet of ours."""

import asyncio
import gc
import warnings
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

        try:
            return asyncio.run(whole())
        finally:
            # A killed operator closes nothing: what it leaves open must not be held against a later test.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()

    return runner
