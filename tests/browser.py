"""Headless Chromium through its DevTools protocol: pages as a reader of some width and palette sees them.

python tests/browser.py PAGE.html WIDTH [light|dark] [PICTURE.png [screen]]  says what is wrong with a page, and draws it
"""

import asyncio
import base64
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

from tornado.websocket import websocket_connect

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, TABLET, DESK = 390, 768, 1400
HEIGHTS = {PHONE: 844, TABLET: 1024, DESK: 900}
# What juts out of the page at its right: the page itself scrolls sideways, or hides what is cut off.
JUTTING = """(() => {
  const page = document.documentElement, scrolls = (one) => one && (["auto", "scroll", "hidden"].includes(
    getComputedStyle(one).overflowX) || scrolls(one.parentElement));
  const out = [...document.querySelectorAll(".bd-article *")].filter((one) => one.getClientRects().length &&
    one.getBoundingClientRect().right > page.clientWidth + 1 && !scrolls(one.parentElement));
  const silent = [...document.querySelectorAll(".bd-article table")].filter((one) => one.scrollWidth > one.clientWidth + 1 &&
    !getComputedStyle(one).backgroundAttachment.includes("local"));  // the shadows of book.css
  return [...silent.map((one) => "a table that scrolls and does not show it: " + one.id),
    page.scrollWidth > page.clientWidth + 1 ? "the page is " + page.scrollWidth + " wide" : "",
    ...out.slice(0, 5).map((one) => one.tagName + "." + one.className + " " + one.textContent.slice(0, 60))].filter(Boolean);
})()"""


@contextmanager
def _running():
    """Start Chromium, and yield the address of one empty tab."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command += [f"--user-data-dir={profile}", "--force-color-profile=srgb", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            line = next(line for line in process.stderr if "DevTools listening on" in line)
            yield line.split()[-1]
        finally:
            process.terminate()
            process.communicate()


class _Tab:
    """A tab: `call` sends a command of the protocol and waits for its answer; `events` are those that came meanwhile."""

    def __init__(self, connection):
        self.connection, self.events, self.number, self.session = connection, [], 0, {}

    async def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | self.session
        await self.connection.write_message(json.dumps(message))
        while (message := await self.read()).get("id") != self.number:
            pass
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    async def read(self):
        message = json.loads(await asyncio.wait_for(self.connection.read_message(), 60))
        if "method" in message:
            self.events.append(message)
        return message

    async def run(self, script):
        """Return what a script returns in the page; its promise is awaited."""
        done = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"]["description"])
        return done["result"].get("value")


def _errors(events) -> list[str]:
    """Return what a page's scripts threw or complained of, and requests that left the machine."""
    found = []
    for event in events:
        about = event["params"]
        if event["method"] == "Runtime.exceptionThrown":
            found.append(about["exceptionDetails"]["exception"].get("description", "an exception"))
        elif event["method"] == "Log.entryAdded" and about["entry"]["level"] == "error":
            found.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif event["method"] == "Runtime.consoleAPICalled" and about["type"] == "error":
            found.append(f"console.error: {about['args']}")
        elif event["method"] == "Network.requestWillBeSent" and about["request"]["url"].startswith("http"):
            found.append(f"asks for {about['request']['url']}")
    return found


async def _look(address, pages, width, palette, script, picture, whole):
    connection = await websocket_connect(address, max_message_size=1 << 28)
    tab = _Tab(connection)
    target = await tab.call("Target.createTarget", url="about:blank")
    attached = await tab.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
    tab.session = {"sessionId": attached["sessionId"]}
    for domain in ("Page", "Runtime", "Log", "Network"):
        await tab.call(f"{domain}.enable")
    size = {"width": width, "height": HEIGHTS.get(width, 900), "deviceScaleFactor": 1, "mobile": width < 600}
    await tab.call("Emulation.setDeviceMetricsOverride", **size)
    await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": palette}])
    found = {}
    for page in pages:
        tab.events.clear()
        await tab.call("Page.navigate", url=Path(page).absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in tab.events):
            await tab.read()
        found[Path(page).name] = (await tab.run(script), _errors(tab.events))
        if picture:
            height = await tab.run("document.documentElement.scrollHeight") if whole else size["height"]
            await tab.call("Emulation.setDeviceMetricsOverride", **(size | {"height": height}))
            await asyncio.sleep(1)  # charts are drawn when they come near
            drawn = await tab.call("Page.captureScreenshot")
            Path(picture).write_bytes(base64.b64decode(drawn["data"]))
    connection.close()
    while await connection.read_message() is not None:  # until it is closed on both sides
        pass
    return found


def look(
    pages: Iterable[Path], width: int, palette: str = "light", script: str = JUTTING, picture: str = "", whole: bool = False
) -> dict[str, tuple[object, list[str]]]:
    """Return of every page what `script` returns in it, and the errors; `picture` is where the last one is drawn."""
    with _running() as address:
        return asyncio.run(_look(address, list(pages), width, palette, script, picture, whole))


if __name__ == "__main__":
    page, width, palette, drawn, part = (*sys.argv[1:], *("light", "", "")[len(sys.argv) - 3 :])
    print(look([Path(page)], int(width), palette, picture=drawn, whole=not part))
