"""The local page in a real browser, headless: what a person sees, clicks, types and can reach with the keyboard."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fedit_client.config import load_config
from fedit_client.manners.control import read_wish
from fedit_client.membership.identity import load_or_create_identity
from fedit_client.membership.joined import require_membership
from fedit_client.page.conversation import Conversation
from fedit_client.page.serving import serving
from fedit_client.records.history import History, RoundEntry

from .test_cli_join import Joining, joining
from .test_page import FakeModel

__all__ = ["joining"]

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--window-size=1100,1500",
)  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="no Chromium with its driver on this machine"),
]


def browser() -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(str(DRIVER)))


def until(driver: Any, holds: Callable[[Any], object]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 15, poll_frequency=0.1).until(holds)


@pytest.fixture
async def home(joining: Joining, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that has joined, with two rounds and an adapter."""
    done = await joining.run("--no-run", "--accept", "test-task@1")
    assert done.status == 0, done.err
    key = load_or_create_identity(joining.home / "identity.key")
    for number, outcome in ((7, "lost"), (8, "committed")):
        History(load_config(joining.home).paths.history, key).append(
            RoundEntry(
                started_at=1_790_000_000, ended_at=1_790_000_600 + number, server="127.0.0.1:1", federation_id="f" * 32,
                task="test-task@1", task_digest="sha256:0", model="tiny", model_digest="sha256:0", mode="masked",
                round_no=number, round_id="r", outcome=outcome, reason="<b>too few devices</b>" * (outcome == "lost"),
                cohort=12, honest=11, survivors=12, bytes_up=24_000_000, bytes_down=24_000_000, adapter_before=0,
                adapter_before_digest="sha256:0", adapter_after=1 if outcome == "committed" else None,
            )
        )  # fmt: skip
    return joining.home


@pytest.fixture
async def shown(home: Path) -> AsyncIterator[tuple[str, FakeModel]]:
    model = FakeModel()
    async with serving(load_config(home), 0, Conversation(lambda: home, model.open)) as address:
        yield address, model


async def test_a_person_sees_state_and_rounds_pauses_and_chats(
    shown: tuple[str, FakeModel], home: Path, tmp_path: Path
) -> None:
    address, model = shown
    await asyncio.to_thread(visited, address, home, tmp_path)
    assert model.asked == [["What is federated learning?"], ["What is federated learning?", ANSWER, "and <i>why</i>?"]]


ANSWER = "you said What is federated learning?"


def visited(address: str, home: Path, folder: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    driver = browser()
    try:
        driver.get(address)
        until(driver, lambda here: "not running" in here.find_element(By.ID, "badge").text)
        assert driver.current_url.endswith("/"), "the token does not stay in the address"
        assert (
            driver.find_element(By.ID, "title").text
            == require_membership(home / "membership.json").task_document.task.title
        )
        driver.refresh()
        until(driver, lambda here: "not running" in here.find_element(By.ID, "badge").text)
        assert driver.get_cookies() == [], "a cookie of 127.0.0.1 would go to every other port"
        rows = [row.text for row in driver.find_elements(By.CSS_SELECTOR, "#rounds tr")][1:]
        assert "committed" in rows[0]
        assert "lost: <b>too few devices</b>" in rows[1], "words of a server are no markup"
        assert not driver.find_elements(By.CSS_SELECTOR, "#rounds b")

        driver.find_element(By.ID, "pause").click()
        until(driver, lambda here: "paused" in here.find_element(By.ID, "told").text)
        assert read_wish(load_config(home).paths).paused
        until(driver, lambda here: here.find_element(By.ID, "resume").is_enabled())
        driver.find_element(By.ID, "resume").send_keys(Keys.ENTER)
        until(driver, lambda here: not read_wish(load_config(home).paths).paused)

        box = driver.find_element(By.ID, "question")
        box.send_keys("What is federated learning?", Keys.ENTER)
        until(driver, lambda here: ANSWER in here.find_element(By.ID, "talk").text)
        until(driver, lambda here: here.find_element(By.ID, "send").is_enabled())
        box.send_keys("and <i>why</i>?", Keys.ENTER)
        until(driver, lambda here: "you said and <i>why</i>?" in here.find_element(By.ID, "talk").text)
        assert not driver.find_elements(By.CSS_SELECTOR, "#talk i")

        driver.save_screenshot(str(folder / "page-light.png"))
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        )
        ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(16, 21, 27)", "a dark desktop gets a dark page"
        driver.save_screenshot(str(folder / "page-dark.png"))
        assert reached_by_tab(driver) >= {"question", "send", "anew", "finish", "pause"} - disabled(driver)
        assert unnamed(driver) == []
        complaints = [entry for entry in driver.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]
        assert [entry for entry in complaints if "favicon" not in entry["message"]] == []
        for size in ((1100, 1500), (360, 800)):
            driver.set_window_size(*size)
            wide = driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"the page is {wide} pixels wider than a window of {size}"
        driver.save_screenshot(str(folder / "page-narrow.png"))
    finally:
        driver.quit()


def reached_by_tab(driver: Any) -> set[str]:
    """The ids that the Tab key comes to, from the top of the page."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    driver.execute_script("document.activeElement.blur(); window.getSelection().removeAllRanges(); scrollTo(0, 0)")
    found: set[str] = set()
    for _ in range(20):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        found.add(driver.switch_to.active_element.get_attribute("id") or "")
    driver.find_element(By.ID, "question").click()
    return found


def disabled(driver: Any) -> set[str]:
    from selenium.webdriver.common.by import By

    return {one.get_attribute("id") for one in driver.find_elements(By.CSS_SELECTOR, "button:disabled")}


def unnamed(driver: Any) -> list[str]:
    """Controls that a screen reader could not name."""
    from selenium.webdriver.common.by import By

    controls = driver.find_elements(By.CSS_SELECTOR, "button, textarea, progress, [role=log], [role=region]")
    return [one.get_attribute("outerHTML") for one in controls if one.is_displayed() and not one.accessible_name]


async def test_a_second_browser_with_the_same_address_stays_outside(shown: tuple[str, FakeModel]) -> None:
    def look() -> str:
        driver = browser()
        try:
            driver.get(shown[0])
            driver.delete_all_cookies()
            driver.get(shown[0])
            return str(driver.page_source)
        finally:
            driver.quit()

    assert "has been used" in await asyncio.to_thread(look)
