# SPDX-License-Identifier: Apache-2.0
"""The browser, once for all tests here, and a server for each."""

import importlib.util
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent


def load(name):
    """A module beside this file, whatever the import path is."""
    full = f"lockstep_web_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, HERE / f"{name}.py")
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
def open_page(browser, page_server):
    """open_page(width=..., height=..., dark=...): the page, opened and introduced to its server. At the
    end nothing may have gone wrong in it, and it may have asked nobody else."""
    pages = []

    def open_it(wait="!document.querySelector('#model').disabled", **options):
        page = browser.page(**options)
        pages.append(page)
        page.open(page_server.url + "/")
        page.wait(wait)
        return page

    yield open_it
    for page in pages:
        page.js("new Promise(requestAnimationFrame)")
        problems = list(page.problems)
        foreign = [url for url in page.requests if not url.startswith(page_server.url + "/")]
        page.close()
        assert not problems
        assert not foreign
