# SPDX-License-Identifier: Apache-2.0
"""The page as the daemon serves it: what only the two together can show."""

import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "src/web/page"
IDLE = "document.querySelector('#stop').hidden"
ANSWER = "document.querySelector('.answer:last-child')"


def set_up(page, tokens):
    """Greedy answers of at most so many tokens."""
    page.wait("!document.querySelector('#model').disabled && document.querySelectorAll('.lane').length === 2")
    page.click("#settings-toggle")
    for name, value in (("temperature", "0"), ("max_tokens", str(tokens))):
        page.click(f"#set-{name}")
        page.type(value)
    page.click("#settings-toggle")


def say(page, text):
    page.click("#prompt")
    page.type(text)
    page.key("Enter")


def test_files_are_those_of_the_source(daemon):
    for file in sorted(FOLDER.iterdir()):
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        status, headers, body = daemon.request("GET", path)
        assert (status, body) == (200, file.read_bytes()), path
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert headers["X-Content-Type-Options"] == "nosniff"
        status, _, body = daemon.request("GET", path, headers={"If-None-Match": headers["ETag"]})
        assert (status, body) == (304, b"")
        status, _, body = daemon.request("HEAD", path)
        assert (status, body) == (200, b"")
    assert daemon.request("GET", "/page/none.js")[0] == 404
    assert daemon.request("GET", "/page/../page/main.js")[0] in (400, 404)
    assert daemon.request("POST", "/", b"{}")[0] == 405


def test_answer_of_the_daemon(daemon, visit):
    page = visit(daemon.url)
    set_up(page, 24)
    say(page, "Which city is the capital of France?")
    page.wait(f"{IDLE} && {ANSWER} !== null", timeout=60)
    assert "Paris" in page.text(".answer > .prose")
    assert page.js("document.querySelector('.error').hidden")
    assert "tokens/s" in page.text(".stats") and "in the prompt" in page.text(".stats")
    assert page.js("[...document.querySelectorAll('.lane .pid')].map((n) => Number(n.innerText.slice(4)))") == [
        pid for _, pid in sorted(daemon.ranks().items())]
    page.wait("document.querySelector('.healing').innerText === 'Ready'")


def test_stop_reaches_the_ranks(daemon, visit):
    page = visit(daemon.url, width=360, height=740)
    page.click("#world-toggle")
    set_up(page, 600)
    say(page, "Tell a very long story about the sea.")
    page.wait(f"{ANSWER}?.innerText.length > 20", timeout=60)
    page.click("#stop")
    page.wait(IDLE)
    daemon.wait_idle(10)


def test_rank_killed_from_the_page(daemon, visit):
    question = "Tell a long story about a lighthouse."
    whole, _ = daemon.chat(question, max_tokens=96)
    before = daemon.world()
    page = visit(daemon.url)
    set_up(page, 96)
    say(page, question)
    page.wait(f"{ANSWER}?.querySelector('.prose:not(.reasoning *)').innerText.length > 20", timeout=60)
    page.click("[aria-label='Kill rank 1']")
    page.wait("document.querySelector('.healing').dataset.state === 'healed'", timeout=60)
    page.wait("document.querySelector('.facts').innerText.includes('Rank 1 was killed')")
    page.wait(IDLE, timeout=60)
    assert page.js("document.querySelector('.error').hidden")
    assert page.js("JSON.parse(localStorage.getItem('lockstep.conversation'))[1].content") == whole
    assert daemon.world()["epoch"] > before["epoch"]
    assert page.js("document.querySelector('.facts dd').innerText") == str(daemon.world()["epoch"])
