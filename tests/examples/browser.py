"""The chat's page in a headless Chromium, as a person sees it and clicks it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from examples.programs import START, need_program
from support import wait_until
from wsgi.servers import need


if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@contextmanager
def chromium() -> Iterator[Chrome]:
    """A browser of the tests' own; it and its driver are gone afterwards."""
    need("selenium")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = need_program("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",  # root has none
        "--disable-dev-shm-usage",  # containers have little of it
        "--disable-background-networking",
        "--no-first-run",
        "--no-proxy-server",
        "--window-size=800,560",
    ):
        options.add_argument(argument)
    # A connection that is kept to the driver would look like one that a test has left open.
    driver = Chrome(options, ChromeService(need_program("chromedriver")), keep_alive=False)
    try:
        driver.set_page_load_timeout(START)
        yield driver
    finally:
        driver.quit()


class Page:
    """The chat's page. Its methods wait for the page, and never for an answer.

    Args:
        driver: Of the browser.
        url: Of the chat.
    """

    def __init__(self, driver: Chrome, url: str) -> None:
        self._driver = driver
        driver.get(url)
        driver.execute_script("sessionStorage.clear()")
        driver.get(url)

    def ask(self, question: str) -> None:
        """Type a question and press the button."""
        self._driver.find_element("id", "question").send_keys(question)
        self._driver.find_element("id", "send").click()

    def stop(self) -> None:
        """Press the button that stops the answer."""
        self._driver.find_element("id", "stop").click()

    def new(self) -> None:
        """Press the button that begins a new chat."""
        self._driver.find_element("id", "new").click()

    def reload(self) -> None:
        """Load the page again, whatever is under way."""
        self._driver.refresh()

    def shows(self, kind: str) -> list[str]:
        """The texts of all that has this class: "question", "answer", "note", "failed"."""
        script = "return [...document.getElementsByClassName(arguments[0])].map(e => e.innerText)"
        texts: list[str] = self._driver.execute_script(script, kind)
        return texts

    def wait_for(self, kind: str, *texts: str) -> None:
        """Wait until it shows these, and nothing else of the kind."""
        try:
            wait_until(lambda: self.shows(kind) == list(texts), START)
        except AssertionError:
            assert self.shows(kind) == list(texts)

    def wait_for_more(self) -> None:
        """Wait until the last answer is longer than now."""
        known = "".join(self.shows("answer")[-1:])
        wait_until(lambda: len("".join(self.shows("answer")[-1:])) > len(known), START)

    def watch(self) -> None:
        """Note each text of the last answer from now on, until the page is loaded again."""
        script = """
            window.watched = [];
            const last = () => [...document.getElementsByClassName("answer")].at(-1);
            const note = () => watched.push(last().innerText);
            const what = {childList: true, subtree: true, characterData: true};
            new MutationObserver(note).observe(document.getElementById("turns"), what);
        """
        self._driver.execute_script(script)

    def watched(self) -> list[str]:
        """What `watch` has noted; fails if the page was loaded again."""
        texts: list[str] = self._driver.execute_script("return watched")
        return texts

    def leave(self) -> None:
        """Show nothing: the page asks its server for nothing any more."""
        self._driver.get("about:blank")

    def can(self, button: str) -> bool:
        """Whether a button may be pressed: "send", "stop"."""
        enabled: bool = self._driver.find_element("id", button).is_enabled()
        return enabled

    def save(self, path: Path) -> None:
        """Write a picture of it."""
        self._driver.save_screenshot(str(path))
