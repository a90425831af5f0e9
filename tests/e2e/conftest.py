# SPDX-License-Identifier: Apache-2.0
"""One server for all tests of a file that only talk to it."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from serving import serving  # noqa: E402


@pytest.fixture(scope="module")
def server(lockstep, model):
    """The default model on two ranks; at the end it drains, exits with 0 and has left nothing."""
    with serving(lockstep, model, "--tp", 2, "--allow-faults", "--hang-ms", 2000) as it:
        yield it
        it.wait_idle()
        assert it.stop() == 0, it.errors


@pytest.fixture
def client(server):
    """The official OpenAI client for that server."""
    import openai

    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)
