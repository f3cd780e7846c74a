"""Use the page of `lsbillm serve` in a real browser, with the mouse and the keyboard.

    python -m pip install PyQt6-WebEngine
    python -m spacy lsbillm serve requests=training/model-best slots=slots/model-best &
    python scripts/check_page.py http://127.0.0.1:8000 --folder screenshots

The browser is Chromium, in Qt, and needs no display. At widths of 400 and 1,000 pixels it types a text with markup,
annotates it, switches the mask and the pipeline, and gives a mask that is not allowed. It ends with an error if
something is not on the page that should be, if the page scrolls sideways, or if anything of the text was run.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before Qt is imported.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--no-sandbox --disable-gpu")

from PyQt6.QtCore import QEventLoop, QPoint, Qt, QTimer, QUrl
from PyQt6.QtTest import QTest
from PyQt6.QtWebEngineCore import QWebEnginePage
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

LINES = ("book a table for two in paris tomorrow", "play some jazz by miles davis <script>alert(1)</script>")
WIDTHS, HEIGHT = (400, 1000), 900
# Milliseconds: for a page, and for keys to arrive.
PATIENCE, MOMENT = 20_000, 300
# The page forbids scripts. Those that look at it run in a world of their own.
OWN_WORLD = 7


class Page(QWebEnginePage):
    """A page that keeps what scripts say."""

    def __init__(self, parent: QWebEngineView) -> None:
        super().__init__(parent)
        self.said: list[str] = []

    def javaScriptConsoleMessage(self, level: Any, message: str, line: int, source: str) -> None:
        self.said.append(message)

    def javaScriptAlert(self, url: QUrl, message: str) -> None:
        self.said.append(message)


class Browser:
    """A window of some width, and a hand for it."""

    def __init__(self, width: int) -> None:
        self.view = QWebEngineView()
        self.page = Page(self.view)
        self.view.setPage(self.page)
        self.view.resize(width, HEIGHT)
        self.view.show()

    def wait(self, milliseconds: int = MOMENT, signal: Any = None) -> None:
        """Wait for a signal, or for some time."""
        loop = QEventLoop()
        if signal is not None:
            signal.connect(loop.quit)
        QTimer.singleShot(milliseconds, loop.quit)
        loop.exec()

    def loads(self, act: Callable[[], object]) -> None:
        """Do something that loads a page, and wait for it."""
        act()
        self.wait(PATIENCE, self.page.loadFinished)
        self.wait()

    def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        found: list[Any] = []
        loop = QEventLoop()

        def answer(value: Any) -> None:
            found.append(value)
            loop.quit()

        self.page.runJavaScript(script, OWN_WORLD, answer)
        QTimer.singleShot(PATIENCE, loop.quit)
        loop.exec()
        return found[0]

    def text(self, selector: str) -> str:
        """The texts of all elements that a selector finds."""
        return str(self.ask(f"[...document.querySelectorAll({selector!r})].map(one => one.innerText).join(' | ')"))

    def click(self, selector: str) -> None:
        """Scroll to an element, and click into its middle."""
        element = f"document.querySelector({selector!r})"
        self.ask(f"{element}.scrollIntoView({{block: 'nearest'}})")
        x, y = self.ask(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({element}.getBoundingClientRect())")
        QTest.mouseClick(self.view.focusProxy(), Qt.MouseButton.LeftButton, pos=QPoint(int(x), int(y)))
        self.wait()

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        QTest.keyClicks(self.view.focusProxy(), text)
        self.wait()

    def press(self, key: Qt.Key) -> None:
        """Press a key."""
        QTest.keyClick(self.view.focusProxy(), key)


def check(address: str, width: int, folder: Path) -> None:
    """Use the page once, and end with an error if something is wrong."""
    browser = Browser(width)
    browser.loads(lambda: browser.view.load(QUrl(address)))
    expect(browser.ask("document.querySelector('textarea') !== null"), f"there is no page at {address}", "")
    browser.click("textarea")
    browser.type(LINES[0])
    browser.press(Qt.Key.Key_Return)
    browser.type(LINES[1])
    browser.loads(lambda: browser.click("button"))
    expect("Entities" in browser.text("h2"), "there are no entities", browser.text("body"))
    kept = browser.ask("document.querySelector('textarea').value")
    expect(kept == "\n".join(LINES), "the text was changed", kept)
    trained = browser.text("mark")
    browser.view.grab().save(str(folder / f"page-{width}.png"))

    if browser.ask("document.querySelector('input[name=mask]') !== null"):
        browser.click("input[name=mask]")
        browser.type("none")
        browser.loads(lambda: browser.press(Qt.Key.Key_Return))
        expect("Entities" in browser.text("h2"), "another mask gives no entities", browser.text("body"))
        causal = browser.text("mark")
        browser.click("input[name=mask]")
        browser.type("!")
        browser.loads(lambda: browser.press(Qt.Key.Key_Return))
        expect("is not a notation of layers" in browser.text(".error"), "no message", browser.text("body"))
        print(f"{width} pixels, as trained: {trained}\n{width} pixels, causal: {causal}")
    # The second pipeline, if there is one.
    browser.loads(lambda: browser.view.load(QUrl(address)))
    browser.click("textarea")
    browser.type(LINES[0])
    browser.press(Qt.Key.Key_Tab)
    browser.press(Qt.Key.Key_Down)
    browser.wait()
    chosen = browser.ask("document.querySelector('select').value")
    browser.loads(lambda: browser.click("button"))
    expect(f"with {chosen}." in browser.text(".note"), f"{chosen} did not answer", browser.text(".note"))
    browser.click("summary")
    expect(browser.ask("document.querySelector('details').open"), "the JSON cannot be opened", "")
    scrolled = browser.ask("document.documentElement.scrollWidth")
    expect(scrolled <= width, f"the page is {scrolled} pixels wide, the window {width}", "")
    expect(not browser.page.said, "something was run", "; ".join(browser.page.said))


def expect(right: bool, wrong: str, found: str) -> None:
    """End with an error unless something is right."""
    if not right:
        raise SystemExit(f"{wrong}. {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="the service's address")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write the screenshots")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    application = QApplication(sys.argv[:1])
    for width in WIDTHS:
        check(args.address, width, args.folder)
    del application
    print("The page works.")


if __name__ == "__main__":
    main()
