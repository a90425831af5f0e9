# SPDX-License-Identifier: Apache-2.0
"""Chromium without a window, driven over its own protocol through a pipe: no driver, no port, no
package besides the browser."""

import base64
import fcntl
import json
import os
import queue
import shutil
import subprocess
import threading
import time

KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32}
START_S = 60  # a first start reads some hundred megabytes
WAIT_S = 20


def find_browser():
    """Chromium's path (LOCKSTEP_BROWSER), or None."""
    for name in (os.environ.get("LOCKSTEP_BROWSER"), "chromium", "chromium-browser", "google-chrome"):
        if name and shutil.which(name):
            return shutil.which(name)
    return None


def high(descriptor):
    """The same above 9, so that the shell's redirections below cannot collide."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


class Browser:
    """One Chromium. Its pages share nothing with each other."""

    def __init__(self, program, folder):
        read_its, write_ours = map(high, os.pipe())
        read_ours, write_its = map(high, os.pipe())
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   "--no-first-run", "--no-default-browser-check", "--disable-background-networking",
                   "--disable-component-update", "--disable-extensions", "--disable-sync", "--mute-audio",
                   "--hide-scrollbars", "--force-color-profile=srgb", f"--user-data-dir={folder}",
                   "--remote-debugging-pipe", "about:blank"]
        redirect = f'exec "$@" 3<&{read_its} 4>&{write_its} {read_its}<&- {write_its}>&-'
        self.log = open(os.path.join(folder, "browser.log"), "wb")
        self.process = subprocess.Popen(["bash", "-c", redirect, "bash", *command], pass_fds=(read_its, write_its),
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        start_new_session=True, env={**os.environ, "HOME": str(folder)})
        os.close(read_its)
        os.close(write_its)
        self.output = os.fdopen(write_ours, "wb", buffering=0)
        self.input = os.fdopen(read_ours, "rb")
        self.number = 0
        self.lock = threading.Lock()
        self.replies = {}
        self.listeners = {}
        self.free = []
        threading.Thread(target=self.listen, daemon=True).start()
        self.version = self.call("Browser.getVersion", timeout=START_S)["product"]

    def listen(self):
        rest = b""
        while True:
            piece = self.input.read1(1 << 16)
            if not piece:
                break
            *messages, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self.replies[message["id"]].put(message)
                elif message.get("sessionId") in self.listeners:
                    self.listeners[message["sessionId"]](message["method"], message["params"])
        for waiting in list(self.replies.values()):
            waiting.put({"error": {"message": "the browser has ended"}})

    def call(self, method, session=None, timeout=WAIT_S, **params):
        with self.lock:
            self.number += 1
            number = self.number
            self.replies[number] = queue.Queue()
            message = {"id": number, "method": method, "params": params}
            if session:
                message["sessionId"] = session
            self.output.write(json.dumps(message).encode() + b"\0")
        reply = self.replies[number].get(timeout=timeout)
        del self.replies[number]
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']['message']}")
        return reply["result"]

    def close(self):
        try:
            self.call("Browser.close", timeout=5)
            self.process.wait(5)
        except (RuntimeError, queue.Empty, subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            self.process.wait()
        self.output.close()
        self.log.close()

    def page(self, width=1280, height=800, dark=False, reduced=False):
        """A tab, perhaps one that was used before."""
        page = self.free.pop() if self.free else Page(self)
        page.reset(width, height, dark, reduced)
        return page


class Page:
    """A tab with a profile of its own, and what happened in it."""

    def __init__(self, browser):
        self.browser = browser
        self.problems = []  # of the console, and exceptions
        self.requests = []  # addresses
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        self.target = browser.call("Target.createTarget", url="about:blank",
                                   browserContextId=self.context)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        browser.listeners[self.session] = self.heard
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def reset(self, width, height, dark, reduced):
        self.problems.clear()
        self.requests.clear()
        self.resize(width, height)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced else "no-preference"}])

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def heard(self, method, params):
        if method == "Runtime.exceptionThrown":
            detail = params["exceptionDetails"]
            self.problems.append(detail.get("exception", {}).get("description") or detail["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded":
            entry = params["entry"]
            if entry["level"] in ("error", "warning") and entry["source"] != "network":
                self.problems.append(entry["text"])  # "network" is an answer such as 401, which tests ask for
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=False)

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def js(self, expression):
        """The value of an expression, which may be a promise."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True,
                           userGesture=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", str(result)))
        return result["result"].get("value")

    def wait(self, expression, timeout=WAIT_S):
        """Until the expression is true, which it returns."""
        end = time.monotonic() + timeout
        while True:
            value = self.js(f"(() => {{ try {{ return {expression}; }} catch {{ return null; }} }})()")
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout} s: {expression}\n{self.js('document.body.innerText')}")
            time.sleep(0.03)

    def text(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def click(self, selector):
        """With the mouse, at the middle of what is really there."""
        x, y, hit = self.wait(f"""(() => {{
            const node = document.querySelector({json.dumps(selector)});
            node.scrollIntoView({{block: "nearest"}});
            const {{x, y, width, height}} = node.getBoundingClientRect();
            const at = [x + width / 2, y + height / 2];
            return width > 0 && [...at, node.contains(document.elementFromPoint(...at))];
        }})()""")
        assert hit, f"{selector} is covered by something"
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, name, shift=False):
        text = {"Enter": "\r", "Space": " "}.get(name, "")
        common = {"key": " " if name == "Space" else name, "code": name, "windowsVirtualKeyCode": KEYS[name],
                  "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def close(self):
        self.js("localStorage.clear(); sessionStorage.clear()")
        self.open("about:blank")
        self.browser.free.append(self)
