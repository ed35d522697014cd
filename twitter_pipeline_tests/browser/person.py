"""What a person does and sees in the UI, for the tests and for the screenshots."""

import json
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from twitter_pipeline_tests.browser.place import PATIENCE_MS


@dataclass(frozen=True)
class Person:
    """Somebody at a page of the UI."""

    page: Page
    url: str

    def open(self, path: str) -> None:
        """Type an address."""
        self.page.goto(f"{self.url}{path}", wait_until="domcontentloaded")

    def open_launchpad(self, job: str) -> None:
        """Open a job and its Launchpad; wait until it shows what it opens on."""
        self.open(f"/locations/twitter_pipeline/jobs/{job}")
        self.page.get_by_role("tab", name="Launchpad").click()
        expect(self.page.locator(".CodeMirror-code")).to_be_visible()
        expect(self.launch_button).to_be_enabled()

    def paste(self, text: str) -> None:
        """Paste over what the editor in front holds."""
        editor = self.page.locator(".CodeMirror").last
        editor.click()
        self.page.keyboard.press("Control+A")
        self.page.evaluate("text => navigator.clipboard.writeText(text)", text)
        self.page.keyboard.press("Control+V")
        expect(editor.locator(".CodeMirror-code")).to_contain_text(text.splitlines()[-1].strip())

    def launch(self) -> None:
        """Launch what the Launchpad holds and wait until the page of the run says that it has succeeded."""
        self.launch_button.click()
        expect(self.page).to_have_url(re.compile(r"/runs/[0-9a-f-]{36}"))
        expect(self.page.get_by_text("Success", exact=True).first).to_be_visible()

    def fill_months(self, first: str, last: str, *, accounts: Sequence[str]) -> None:
        """Start a backfill of months, given as the UI writes them (`2026-01`), for some accounts."""
        self.open("/assets/tweets_by_month?view=partitions")
        self.page.get_by_role("button", name="Materialize").first.click()
        dialog = self.page.get_by_role("dialog").first
        chosen = dialog.locator("input[type=text]").first
        chosen.fill(f"[{first}...{last}]")
        chosen.press("Enter")
        dialog.get_by_text("Config", exact=True).click()
        dialog.get_by_text("Add config").click()
        expect(self.page.locator(".CodeMirror-code")).to_be_visible()
        self.paste(json.dumps({"ops": {"tweets_by_month": {"config": {"accounts": accounts}}}}))
        self.page.get_by_role("button", name="Save config").click()
        dialog.get_by_role("button", name="Launch backfill").click()
        expect(dialog).to_be_hidden()

    def account_table(self) -> list[dict[str, str]]:
        """Read the table of accounts on the page of a run, by its headings; its last one, where there are several."""
        table = self.page.get_by_role("table").filter(has_text="asked").filter(has_text="outcome").last
        expect(table).to_be_visible()
        head, *rows = [row.locator("th, td").all_inner_texts() for row in table.get_by_role("row").all()]
        return [dict(zip(head, row, strict=True)) for row in rows]

    def show(self, name: str) -> Locator:
        """Press *Show Markdown* of a run's metadata; return the dialog with its picture, once that is drawn."""
        row = self.page.get_by_role("row").filter(has_text=name).filter(has_text="Show Markdown").last
        row.get_by_text("Show Markdown").click()
        dialog = self.page.get_by_role("dialog")
        expect(dialog.get_by_role("img", name=name)).to_be_visible()
        self.page.wait_for_function("name => document.querySelector(`img[alt='${name}']`).naturalWidth > 0", arg=name)
        return dialog

    def close(self) -> None:
        """Close the dialog in front."""
        self.page.keyboard.press("Escape")
        expect(self.page.get_by_role("dialog")).to_be_hidden()

    @property
    def launch_button(self) -> Locator:
        """The button of the Launchpad."""
        return self.page.get_by_role("button", name="Launch Run")


@contextmanager
def window_of(browser: Browser, *, height: int) -> Generator[BrowserContext]:
    """Open a window, 1,400 pixels wide, while the context lasts; its tabs share what the browser keeps."""
    window = browser.new_context(
        viewport={"width": 1400, "height": height}, permissions=["clipboard-read", "clipboard-write"]
    )
    window.set_default_timeout(PATIENCE_MS)
    yield window
    window.close()


@contextmanager
def in_a_window(window: BrowserContext, url: str) -> Generator[Person]:
    """Put somebody at a new tab while the context lasts."""
    page = window.new_page()
    yield Person(page, url)
    page.close()
