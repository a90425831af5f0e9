# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser. open_page also checks, at the end of each test, that the console is clean
and that nothing outside was asked."""

import json
import time

import pytest

IDLE = "document.querySelector('#stop').hidden"
ANSWER = "document.querySelector('.answer:last-child')"


def say(page, text):
    page.click("#prompt")
    page.type(text)
    page.key("Enter")


def ask(page, text):
    """Sends text, waits for the end, and returns what the answer's prose reads."""
    n = page.js("document.querySelectorAll('.answer').length")
    say(page, text)
    page.wait(f"document.querySelectorAll('.answer').length > {n} && {IDLE}")
    return page.text(".answer:last-child > .prose")


def answered(page, server, text):
    """The HTML of an answer that reads text."""
    server.scripts["show"] = [text]
    ask(page, "show")
    return page.js(f"{ANSWER}.querySelector(':scope > .prose').innerHTML")


# --- Conversation ---

def test_answer_comes_as_a_stream(open_page, page_server):
    page_server.scripts["count"] = ["one ", 0.6, "two ", 0.1, "three"]
    page = open_page()
    say(page, "count")
    page.wait(f"{ANSWER}.innerText.includes('one')")
    assert "two" not in page.text(".answer")
    assert page.js("document.querySelector('#send').hidden")
    page.wait(IDLE)
    assert page.text(".answer > .prose") == "one two three"
    stats = page.text(".stats")
    assert "3 tokens \u00b7" in stats and "tokens/s" in stats
    assert "21 in the prompt, 16 of them cached" in stats
    body = page_server.bodies[0]
    assert body == {"model": "small", "messages": [{"role": "user", "content": "count"}], "stream": True,
                    "stream_options": {"include_usage": True}}


def test_conversation_is_sent_whole_and_survives_a_reload(open_page, page_server):
    page = open_page()
    ask(page, "first")
    ask(page, "second")
    page.open(page_server.url + "/")
    page.wait("document.querySelectorAll('.answer').length === 2")
    assert page.text(".answer:last-child .stats")
    ask(page, "third")
    assert [(m["role"], m["content"]) for m in page_server.bodies[-1]["messages"]] == [
        ("user", "first"), ("assistant", "You said: first"), ("user", "second"),
        ("assistant", "You said: second"), ("user", "third")]
    page.click("#clear")
    assert page.js("document.querySelector('#log').children.length") == 0
    page.open(page_server.url + "/")
    page.wait("!document.querySelector('#empty').hidden")


@pytest.mark.parametrize("store", ["[{}]", "no json", '[{"role":"assistant","content":"x","tools":[null]}]',
                                   '{"a":1}', '[null,{"role":"user","content":7}]'])
def test_damaged_store_does_no_harm(open_page, store):
    page = open_page()
    page.js(f"localStorage.setItem('lockstep.conversation', {json.dumps(store)})")
    page.js("localStorage.setItem('lockstep.settings', 'null')")
    page.call("Page.reload")
    page.wait("!document.querySelector('#model').disabled")
    assert ask(page, "still there?") == "You said: still there?"


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop_ends_the_request_and_keeps_what_came(open_page, page_server, how):
    page_server.scripts["long"] = ["begun ", *[x for i in range(300) for x in (f"w{i} ", 0.02)]]
    page = open_page()
    say(page, "long")
    page.wait(f"{ANSWER}.innerText.includes('w3')")
    page.click("#stop") if how == "button" else page.key("Escape")
    page.wait(IDLE)
    text = page.text(".answer > .prose")
    assert text.startswith("begun w0 w1") and "stopped" in page.text(".stats")
    end = time.monotonic() + 5
    while page_server.gone == 0 and time.monotonic() < end:
        time.sleep(0.02)
    assert page_server.gone == 1
    assert page.text(".answer > .prose") == text


def test_regenerate_replaces_the_answer(open_page, page_server):
    page = open_page()
    page_server.scripts["q"] = ["one"]
    assert ask(page, "q") == "one"
    page_server.scripts["q"] = ["another"]
    page.click(".answer footer button:last-child")
    page.wait(f"{IDLE} && {ANSWER}.innerText.includes('another')")
    assert page.js("document.querySelectorAll('.message').length") == 2
    assert page_server.bodies[1]["messages"] == [{"role": "user", "content": "q"}]


def test_edit_takes_the_last_message_back(open_page, page_server):
    page = open_page()
    ask(page, "keep")
    ask(page, "wrong")
    assert page.js("[...document.querySelectorAll('.user footer')].map((x) => x.hidden)") == [True, False]
    page.click(".user:nth-last-child(2) footer button")
    assert page.js("document.querySelector('#prompt').value") == "wrong"
    assert page.js("document.querySelectorAll('.message').length") == 2
    page.type("er")
    page.key("Enter")
    page.wait(f"document.querySelectorAll('.message').length === 4 && {IDLE}")
    assert page_server.bodies[-1]["messages"][-1]["content"] == "wronger"


def test_settings_are_sent_and_kept(open_page, page_server):
    page = open_page()
    page.click("#settings-toggle")
    for name, value in {"system": "Be brief.", "temperature": "0.7", "top_p": "0.9", "top_k": "40",
                        "max_tokens": "64", "seed": "7"}.items():
        page.click(f"#set-{name}")
        page.type(value)
    page.call("Page.reload")
    page.wait("!document.querySelector('#model').disabled")
    page.js("document.querySelector('#model').value = 'large-with-a-rather-long-name-Q4_K_M'")
    ask(page, "hello")
    body = page_server.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {name: body[name] for name in ("model", "temperature", "top_p", "top_k", "max_tokens", "seed")} == {
        "model": "large-with-a-rather-long-name-Q4_K_M", "temperature": 0.7, "top_p": 0.9, "top_k": 40,
        "max_tokens": 64, "seed": 7}
    page.click("#settings-toggle")
    page.click("#settings-reset")
    ask(page, "again")
    assert set(page_server.bodies[1]) == {"model", "messages", "stream", "stream_options"}


def test_events_cut_anywhere(open_page, page_server):
    """Bytes of a character, of an event and of its end arrive apart; comments are passed over."""
    frame = "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": "h\u00e9\u4e16"}}]},
                                  ensure_ascii=False) + "\r\n\r\n"
    data = b": ping\n\n" + frame.encode() * 2
    page_server.scripts["cut"] = [data[i:i + 1] for i in range(len(data))]
    page = open_page()
    assert ask(page, "cut") == "h\u00e9\u4e16" * 2


def test_reasoning_is_folded_and_tools_are_code(open_page, page_server):
    page_server.scripts["think"] = [
        {"reasoning_content": "Let me "}, {"reasoning_content": "think."}, "Done.",
        {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"<b>Bern</b>"}'}}]},
        {"finish": "tool_calls"}]
    page = open_page()
    ask(page, "think")
    assert page.js("document.querySelector('.reasoning').open") is False
    assert page.js("document.querySelector('.reasoning .prose').textContent") == "Let me think."
    page.click(".reasoning summary")
    assert "Let me think." in page.text(".reasoning")
    assert page.text(".answer > .prose") == "Done."
    assert page.text(".calls pre") == 'weather({\n  "city": "<b>Bern</b>"\n})'
    ask(page, "next")
    assert "think." not in json.dumps(page_server.bodies[1])


# --- When things go wrong ---

def test_refused_request_says_why(open_page, page_server, failure):
    page_server.scripts["bad"] = [failure(400, "temperature: 3 is above 2", "invalid_value")]
    page = open_page()
    ask(page, "bad")
    assert page.text(".error") == "temperature: 3 is above 2 (400, invalid_value)"
    assert ask(page, "good") == "You said: bad\n\ngood"  # what got no answer is asked with it


def test_error_in_the_middle_of_a_stream(open_page, page_server):
    page_server.scripts["break"] = ["half an ", {"error": {"message": "the world has failed", "type": "server_error",
                                                           "param": None, "code": "world_failed"}}]
    page = open_page()
    assert ask(page, "break") == "half an"
    assert page.text(".error") == "the world has failed (world_failed)"
    assert page.js("document.querySelector('.error').getAttribute('role')") == "alert"


@pytest.mark.parametrize("steps, what", [(["so far", "END"], "The "), ([b"data: {oops\n\n"], "no JSON")])
def test_broken_stream_is_no_whole_answer(open_page, page_server, steps, what):
    page_server.scripts["cut off"] = steps
    page = open_page()
    ask(page, "cut off")
    assert what in page.text(".error")


def test_loading_server_is_waited_for(open_page, page_server):
    page = open_page()
    page_server.loading = 2
    say(page, "early")
    page.wait("document.querySelector('.note')?.innerText.startsWith('The server is loading or not ready: "
              "the model is loading Trying again in 1 s')")
    page.wait(f"{ANSWER}.innerText.includes('You said: early')")
    assert len(page_server.bodies) == 3
    page_server.loading = 1000
    say(page, "never")
    page.wait(f"{ANSWER}.querySelector('.note').innerText.startsWith('The server is loading')")
    page.click("#stop")
    page.wait(IDLE)


def test_key_is_asked_for_and_used(open_page, page_server):
    page_server.key = "s3cret"
    page = open_page(wait="!document.querySelector('#key').hidden")
    page.click("#prompt")
    page.type("hello")
    page.key("Enter")
    page.wait("document.querySelector('.error')?.innerText.includes('401')")
    page.click("#key-field")
    page.type("wrong")
    page.key("Enter")
    page.wait("document.querySelector('#key-why').innerText.includes('does not accept')")
    page.click("#key-field")
    page.type("s3cret")
    page.key("Enter")
    page.wait(f"{IDLE} && {ANSWER}?.innerText.includes('You said: hello')")  # the refused one is sent again
    page.wait("!document.querySelector('#model').disabled && document.querySelectorAll('.lane').length === 2")
    assert page.js("document.querySelector('#key').hidden")
    assert page.js("JSON.stringify(localStorage)").find("s3cret") < 0
    assert "s3cret" not in page.js("document.documentElement.outerHTML")


def test_late_refusal_of_the_key_before(open_page, page_server):
    """A poll with a wrong key that is refused after the right one came does not ask for a key again."""
    page_server.key, page_server.late_key = "s3cret", "wrong"
    page = open_page(wait="!document.querySelector('#key').hidden")
    page.click("#key-field")
    page.type("wrong")
    page.key("Enter")
    page.wait("document.querySelector('#key-why').innerText.includes('does not accept')")
    assert page_server.waits.wait(10), "another poll is still under way"
    page.click("#key-field")
    page.type("s3cret")
    page.key("Enter")
    page.wait("document.querySelector('#key').hidden && !document.querySelector('#model').disabled")
    page_server.late.set()
    page.wait("document.querySelectorAll('.lane').length === 2")  # the next poll, with the right key
    assert page.js("document.querySelector('#key').hidden")


# --- The world ---

def test_world_is_shown(open_page):
    page = open_page()
    page.wait("document.querySelectorAll('.lane').length === 2")
    assert page.text(".healing") == "Ready"
    assert "64 used, 32 cached, 160 free of 256 pages" in page.text("#world")
    page.wait("/\\d ms a step: [\\d.]+ compute, [\\d.]+ wait/.test(document.querySelectorAll('.lane .figures')[1].innerText)")
    page.wait("Number.parseFloat(document.querySelector('h3 b').innerText) > 20")
    assert page.js("document.querySelectorAll('.lane')[0].querySelector('.series.wait').getAttribute('d').length") > 10
    assert page.js("document.querySelector('.lane svg').getAttribute('aria-label')").startswith("Rank 0, last minute:")


def test_killed_rank_is_seen_to_heal_and_the_answer_goes_on(open_page, page_server):
    page_server.scripts["story"] = [x for i in range(60) for x in (f"w{i} ", 0.03)]
    page = open_page()
    page.wait("document.querySelectorAll('.lane').length === 2")
    say(page, "story")
    page.wait(f"{ANSWER}.innerText.includes('w5')")
    page.click("[aria-label='Kill rank 1']")
    page.wait("document.querySelector('.healing').innerText.includes('A rank died, healing')")
    page.wait("document.querySelector('.note')?.innerText.includes('A rank died')")
    page.wait("document.querySelector('.healing').innerText.includes('Healed. Epoch 2')")
    page.wait(IDLE)
    assert page_server.faults == [1]
    assert page.text(".answer > .prose") == " ".join(f"w{i}" for i in range(60))
    assert page.js("document.querySelector('.error').hidden && document.querySelector('.note').hidden")
    facts = page.text(".facts")
    assert "Rank 1 was killed in step 9,812, layer 17, all\u2011reduce 34" in facts and "0.31 s" in facts
    page.wait("[...document.querySelectorAll('.marks')].every((mark) => mark.getAttribute('d') !== '')")


def test_no_button_without_faults_and_no_panic_without_fields(open_page, page_server):
    page_server.features = ["chat"]
    page = open_page()
    page.wait("document.querySelectorAll('.lane').length === 2")
    assert page.js("[...document.querySelectorAll('.lane button')].every((b) => b.hidden)")
    page_server.bare = True
    page.wait("document.querySelectorAll('.lane').length === 0")
    assert page.text(".healing") == "Ready"
    assert ask(page, "hi") == "You said: hi"


# --- Markdown, from a source that is not to be trusted ---

ATTACKS = [
    "<script>window.hit = 1</script>", "<img src=x onerror='window.hit=1'>", "<svg/onload=window.hit=1>",
    "[x](javascript:window.hit=1)", "[x](JaVaScRiPt:window.hit=1)", "[x](java\tscript:window.hit=1)",
    "[x](\x01javascript:window.hit=1)", "[x](data:text/html,<script>window.hit=1</script>)",
    "[x](vbscript:x)", "<javascript:window.hit=1>", "![x](javascript:window.hit=1)",
    "![x](https://example.invalid/a.png)", "[x](https://example.invalid/\"onmouseover=\"window.hit=1)",
    "```\"><script>window.hit=1</script>\ncode\n```", "| <img src=x onerror=window.hit=1> |\n| --- |\n| <b>x</b> |",
    "`<img src=x onerror=window.hit=1>`", "# <iframe src=javascript:window.hit=1></iframe>",
    "[a](https://x.invalid 'onclick=window.hit=1')", "<a href='javascript:window.hit=1'>x</a>",
    "[<img src=x onerror=window.hit=1>](https://example.invalid/)", "[x]: javascript:window.hit=1",
    "<style>*{display:none}</style>", "<form action=https://example.invalid><button>x</button></form>",
]


def test_nothing_from_a_model_becomes_markup(open_page, page_server):
    page = open_page()
    page_server.scripts["attack"] = ["\n\n".join(ATTACKS)]
    page_server.scripts["reason"] = [{"reasoning_content": attack + "\n\n"} for attack in ATTACKS] + ["x"]
    page_server.scripts["call"] = [{"tool_calls": [{"index": 0, "function": {
        "name": "<img src=x onerror=window.hit=1>", "arguments": "<script>window.hit=1</script>"}}]}]
    for said in ("attack", "reason", "call", "<img src=x onerror=window.hit=1>"):
        ask(page, said)
    page.js("new Promise((resolve) => setTimeout(resolve, 100))")
    assert page.js("window.hit ?? null") is None
    assert page.js("document.querySelectorAll('#log :is(script, img, iframe, style, form, object, embed, link, base, a:not([rel]))').length") == 0
    links = page.js("[...document.querySelectorAll('#log a')].map((a) => [a.protocol, a.rel, a.target])")
    assert links and all(link == ["https:", "noopener noreferrer nofollow", "_blank"] for link in links)
    attributes = page.js("[...new Set([...document.querySelectorAll('#log *')].flatMap((n) => n.getAttributeNames()))]")
    assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "srcdoc", "action")]


MARKDOWN = [
    ("plain **bold** *italic* ***both*** ~~gone~~ `code`",
     "<p>plain <strong>bold</strong> <em>italic</em> <strong><em>both</em></strong> <s>gone</s> <code>code</code></p>"),
    ("snake_case_name and 2 * 3 * 4 and __init__", "<p>snake_case_name and 2 * 3 * 4 and <strong>init</strong></p>"),
    (r"\*not\* \`code\` a\b", r"<p>*not* `code` a\b</p>"),
    ("**a *b* c** *x **y** z*", "<p><strong>a <em>b</em> c</strong> <em>x <strong>y</strong> z</em></p>"),
    ("``a ` b`` and ` open", "<p><code>a ` b</code> and ` open</p>"),
    ("**not closed\nnext", "<p>**not closed<br>next</p>"),
    ("# One\n## Two ##\ntext\n---\nmore",
     '<h3 data-level="1">One</h3><h4 data-level="2">Two</h4><p>text</p><hr><p>more</p>'),
    ("- a\n- b\n  - c\n    1. d\n- e",
     "<ul><li>a</li><li>b<ul><li>c<ol><li>d</li></ol></li></ul></li><li>e</li></ul>"),
    ("3. three\n4. four\n\ntext", '<ol start="3"><li>three</li><li>four</li></ol><p>text</p>'),
    ("1. a\n\n   more\n\n2. b", "<ol><li><p>a</p><p>more</p></li><li>b</li></ol>"),
    ("text:\n- a\n- b", "<p>text:</p><ul><li>a</li><li>b</li></ul>"),
    ("> a\n> - b\n\nc", "<blockquote><p>a</p><ul><li>b</li></ul></blockquote><p>c</p>"),
    ("a < b && c > d &amp; e", "<p>a &lt; b &amp;&amp; c &gt; d &amp;amp; e</p>"),
]


def test_markdown(open_page, page_server):
    page = open_page()
    for text, html in MARKDOWN:
        assert answered(page, page_server, text) == html, text
        page.click("#clear")


def test_links(open_page, page_server):
    page = open_page()
    answered(page, page_server, "[a *b*](https://a.invalid/x_(y)) https://b.invalid/q?a=1&b=2. (see "
                                "https://c.invalid/d) <https://e.invalid> [mail](mailto:a@b.invalid) [no](./x) [open](https:")
    assert page.js("[...document.querySelectorAll('#log a')].map((a) => [a.textContent, a.getAttribute('href')])") == [
        ["a b", "https://a.invalid/x_(y)"], ["https://b.invalid/q?a=1&b=2", "https://b.invalid/q?a=1&b=2"],
        ["https://c.invalid/d", "https://c.invalid/d"], ["https://e.invalid", "https://e.invalid/"],
        ["mail", "mailto:a@b.invalid"]]
    assert page.text(".answer > .prose").endswith("no [open](https:")


def test_tables_and_code(open_page, page_server):
    page = open_page()
    answered(page, page_server, "| a | b |\n|:--|--:|\n| 1 | `x\\|y` |\n| 2 |\n\n- item\n  ```c\n  int x;\n\n    y();\n  ```\n"
                                "- last\n\n~~~\n```\nunclosed")
    assert page.js("[...document.querySelectorAll('tr')].map((r) => [...r.cells].map((c) => c.textContent + ':' + c.dataset.align))") == [
        ["a:start", "b:end"], ["1:start", "x|y:end"], ["2:start", ":end"]]
    assert page.js("[...document.querySelectorAll('pre')].map((p) => p.textContent)") == ["int x;\n\n  y();", "```\nunclosed"]
    assert page.js("[...document.querySelectorAll('.prose li')].length") == 2
    page.browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
                      browserContextId=page.context)
    page.click("figure .copy")
    page.wait("document.querySelector('.copy').innerText === 'Copied'")
    assert page.js("navigator.clipboard.readText()") == "int x;\n\n  y();"


def test_text_that_grows_reads_as_if_it_came_at_once(open_page, page_server):
    text = "# T\n\npara **b** `c`\n\n- a\n- b\n\n```py\nx = 1\n```\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n> q\n\nend"
    page = open_page()
    whole = answered(page, page_server, text)
    page.click("#clear")
    page_server.scripts["slow"] = [x for c in text for x in (c, 0.001)]
    ask(page, "slow")
    assert page.js("document.querySelector('.answer > .prose').innerHTML") == whole


def test_hostile_markdown_takes_no_time(open_page):
    """Nothing that a model can write makes the page stand still."""
    page = open_page()
    spent = page.js("""import("/page/markdown.js").then(({MarkdownView}) => {
        const shapes = ["*", "**a ", "_a", "`", "[", "[a](", "![", "> ", "- ", "|", "| a ", "~~", "<http://", "\\\\",
            "*a `b ", "[[](", "#", " ", "``` ", "https://", "a(", "1. ", "***a** ", "- ```\\n"];
        let worst = ["", 0];
        for (const shape of shapes) {
            for (const tail of ["", "\\n"]) {
                const text = (shape + tail).repeat(12000 / (shape + tail).length);
                const began = performance.now();
                new MarkdownView(document.createElement("div")).show(text);
                const ms = performance.now() - began;
                worst = ms > worst[1] ? [shape + tail, ms] : worst;
            }
        }
        return worst;
    })""")
    assert spent[1] < 5000, spent


# --- For everybody ---

CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex='0']"


@pytest.mark.parametrize("width, height", [(1280, 800), (360, 740)])
def test_every_control_by_keyboard(open_page, page_server, width, height):
    page_server.scripts["rich"] = [{"reasoning_content": "r"}, "```\ncode\n```\n\n[l](https://a.invalid)\n\n| a |\n| - |\n| 1 |"]
    page = open_page(width=width, height=height)
    ask(page, "rich")
    if width < 960:
        page.click("#world-toggle")
    page.wait("document.querySelectorAll('.lane').length === 2")
    page.js("document.activeElement.blur()")
    count = f"""[...document.querySelectorAll("{CONTROLS}")].filter((n) => n.checkVisibility() && !n.disabled)"""
    page.js(f"window.wanted = new Set({count}); window.bad = []; 1")
    total = page.js("wanted.size")
    assert total >= 13
    for _ in range(total + 4):
        page.key("Tab")
        page.js("""(() => {
            const n = document.activeElement;
            wanted.delete(n);
            const style = getComputedStyle(n);
            const name = n.ariaLabel || n.labels?.[0]?.textContent || n.textContent || n.title;
            const seen = style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 2;
            if (n !== document.body && (!seen || !name.trim())) bad.push(n.outerHTML.slice(0, 80));
        })()""")
    assert page.js("[...wanted].map((n) => n.outerHTML.slice(0, 80))") == []
    assert page.js("bad") == []


def test_keyboard_alone_is_enough(open_page, page_server):
    page_server.scripts["story"] = [x for i in range(200) for x in (f"w{i} ", 0.02)]
    page = open_page(width=360, height=740)
    assert page.js("document.activeElement.id") == "prompt"
    page.type("story")
    page.key("Enter")
    page.wait(f"{ANSWER}.innerText.includes('w2')")
    page.js("document.querySelector('#world-toggle').focus()")
    page.key("Space")
    page.wait("document.querySelectorAll('.lane').length === 2")
    page.js("document.querySelector('.lane button').focus()")
    page.key("Enter")
    page.wait("document.querySelector('#world-brief').innerText.includes('Healing')")
    page.key("Escape")
    page.wait(IDLE)
    assert page_server.faults == [0]


@pytest.mark.parametrize("width, height, dark", [(360, 740, False), (360, 740, True), (320, 568, False), (768, 1024, True),
                                                 (1280, 800, True)])
def test_nothing_sticks_out(open_page, page_server, tmp_path, width, height, dark):
    page = open_page(width=width, height=height, dark=dark)
    page_server.scripts["w"] = ["# " + "wide" * 40 + "\n\n" + "x" * 300 + "\n\n```\n" + "y" * 300 + "\n```\n\n|" + "z" * 90 +
                                "|b|\n|-|-|\n|1|2|\n\nhttps://a.invalid/" + "u" * 200]
    ask(page, "w" * 200)
    ask(page, "w")
    for panel in (None, "#settings-toggle", "#world-toggle"):
        if panel and page.js(f"document.querySelector('{panel}').checkVisibility()"):
            page.click(panel)
        assert page.js("document.documentElement.scrollWidth") <= width, panel
        assert page.js("document.documentElement.scrollHeight") <= height, panel
        out = page.js(f"""[...document.querySelectorAll("button, input, select, textarea")].filter((n) => {{
            const box = n.getBoundingClientRect();
            return n.checkVisibility() && !n.closest("pre, .wide") && (box.left < 0 || box.right > {width});
        }}).map((n) => n.outerHTML.slice(0, 80))""")
        assert out == [], panel
        assert page.js("document.querySelector('#prompt').getBoundingClientRect().bottom") <= height, panel
    page.screenshot(tmp_path / "page.png")


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_read(open_page, page_server, dark):
    """WCAG AA: 4.5 for text and 3 for the borders of controls, on the ground they stand on."""
    page = open_page(dark=dark)
    ratios = page.js("""(() => {
        const style = getComputedStyle(document.documentElement);
        const light = (name) => {
            const [r, g, b] = style.getPropertyValue(`--${name}`).trim().slice(1).match(/../g).map((x) => {
                const c = Number.parseInt(x, 16) / 255;
                return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const pairs = [["ink", "ground", 4.5], ["ink", "surface", 4.5], ["ink", "raised", 4.5], ["soft", "ground", 4.5],
            ["soft", "surface", 4.5], ["soft", "raised", 4.5], ["accent", "ground", 4.5], ["on-accent", "accent", 4.5],
            ["fault", "surface", 4.5], ["fault", "fault-ground", 4.5], ["healing", "healing-ground", 4.5],
            ["edge", "surface", 3], ["edge", "ground", 3], ["focus", "ground", 3], ["compute", "surface", 3]];
        return pairs.map(([a, b, least]) => {
            const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
            return [a, b, (x + 0.05) / (y + 0.05), least];
        });
    })()""")
    assert [ratio for ratio in ratios if ratio[2] < ratio[3]] == []
    ground = page.js("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) is dark


def test_reduced_motion(open_page, page_server):
    page_server.scripts["slow"] = ["a", 0.8, "b"]
    for reduced in (False, True):
        page = open_page(reduced=reduced)
        say(page, "slow")
        page.wait(f"{ANSWER}.innerText.includes('a')")
        name = page.js("getComputedStyle(document.querySelector('.running > .prose > p'), '::after').animationName")
        assert name == ("none" if reduced else "beat")
        page.wait(IDLE)


def test_hidden_page_asks_nothing(open_page, browser):
    page = open_page()
    page.wait("document.querySelectorAll('.lane').length === 2")
    page.js("""Object.defineProperty(document, "hidden", {get: () => window.away ?? false, configurable: true}); window.away = true;
        document.dispatchEvent(new Event("visibilitychange"))""")
    time.sleep(0.3)
    before = len(page.requests)
    time.sleep(1.3)
    assert len(page.requests) == before
    page.js("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait("true")
    end = time.monotonic() + 5
    while len(page.requests) == before and time.monotonic() < end:
        time.sleep(0.02)
    assert len(page.requests) > before
