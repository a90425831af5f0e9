# SPDX-License-Identifier: Apache-2.0
"""The browser, once for all tests here, and a server for each."""

import importlib.util
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent


def load(name, folder=HERE):
    """A module of that folder, whatever the import path is."""
    full = f"lockstep_web_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, folder / f"{name}.py")
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    module = load("browser")
    program = module.find_browser()
    if program is None:
        pytest.skip("chromium is not installed (./check installs it, or set LOCKSTEP_BROWSER)")
    browser = module.Browser(program, tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture
def failure():
    return load("mock").Failure


@pytest.fixture
def page_server():
    """The imitation of the daemon. What the tests need of it: url, and the state they change."""
    server = load("mock").Mock()
    yield server
    server.close()


@pytest.fixture
def visit(browser):
    """visit(url, width=..., height=..., dark=..., reduced=...): the page of that server, opened. At the
    end nothing may have gone wrong in it, and it may have asked nobody else."""
    pages = []

    def open_it(url, **options):
        page = browser.page(**options)
        pages.append((page, url))
        page.open(url + "/")
        return page

    yield open_it
    for page, url in pages:
        page.js("new Promise(requestAnimationFrame)")
        problems = list(page.problems)
        foreign = [asked for asked in page.requests if not asked.startswith(url + "/")]
        page.close()
        assert not problems
        assert not foreign


@pytest.fixture
def open_page(visit, page_server):
    """As visit, of the imitation, once the page has learned of its models."""

    def open_it(wait="!document.querySelector('#model').disabled", **options):
        page = visit(page_server.url, **options)
        page.wait(wait)
        return page

    return open_it


@pytest.fixture(scope="module")
def daemon(lockstep, model):
    """The real server: the default model on two ranks that may be killed."""
    folder = HERE.parent / "e2e"
    with load("serving", folder).serving(lockstep, model, "--tp", 2, "--allow-faults", "--hang-ms", 2000) as server:
        yield server
        assert server.stop() == 0, server.errors
