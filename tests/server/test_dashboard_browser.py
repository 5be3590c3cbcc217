"""The operator's pages in a real, headless browser: what people see, read, type, and reach with the keyboard."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fedit_server.access import sessions
from fedit_server.access.roles import Role
from fedit_server.clock import utc_now
from fedit_server.config import ServerConfig
from fedit_server.running.serving import Plan, Serving, serving

from .bases import make_base, small_task
from .devices import Device, one_hot
from .histories import NOTES, add_clients, add_rounds, offer_of

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--ignore-certificate-errors", "--window-size=1280,1000",
)  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="no Chromium with its driver on this machine"),
]

LONG = "Clinic notes from every ward and outpatient department of the hospitals of the north-western region, 2026"
PAGES = ("/", "/tasks/notes", "/tasks/notes/rounds", "/tasks/notes/rounds/55", "/tasks/notes/rounds/50",
         "/tasks/notes/adapters", "/tasks/notes/evaluation", "/tasks/notes/privacy", "/clients", "/invites", "/audit",
         "/editor", "/editor?task=notes", "/api-docs",
         "/settings")  # fmt: skip

CONTRASTS = Path(__file__).with_name("contrast.js").read_text("utf-8")


def browser(*, scripts: bool = True) -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS:
        options.add_argument(flag)
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(str(DRIVER)))


def until(driver: Any, holds: Callable[[Any], object]) -> None:
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    passing = (NoSuchElementException, StaleElementReferenceException)  # the page is just being replaced
    WebDriverWait(driver, 60, poll_frequency=0.1, ignored_exceptions=passing).until(holds)


def signed_in(driver: Any) -> bool:
    return str(driver.title).startswith("Overview")


def text_of(driver: Any, selector: str) -> str:
    from selenium.webdriver.common.by import By

    return str(driver.find_element(By.CSS_SELECTOR, selector).text)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serving]:
    """A server over HTTPS with one task of three devices, and no round yet."""
    task = small_task(
        make_base(tmp_path / "base"), top={"title": LONG, "operator": "Example Org"}, round={"rounds": 2000}
    )
    config = ServerConfig(home=tmp_path / "home", listen="127.0.0.1:0", name="Northern clinics", drain_s=0.0)
    async with serving(Plan(config, [task])) as served:
        yield served


async def login_link(served: Serving, role: Role = Role.ADMIN) -> str:
    _, secret = await sessions.make_link(served.parts.admin.gate, role)
    return f"https://127.0.0.1:{served.port}/#login={secret}"


async def with_history(served: Serving, rounds: int) -> None:
    store = served.parts.store
    task = await store.tasks.task(NOTES)
    assert task is not None
    names = await add_clients(store, 60, label="ward {} desk")
    await add_rounds(store, rounds, names, offer_of(served.parts.identity, task.document))


async def test_an_operator_signs_in_and_every_page_is_readable_in_every_light(served: Serving, tmp_path: Path) -> None:
    await with_history(served, 60)
    await asyncio.to_thread(visited, await login_link(served), tmp_path)


def visited(link: str, folder: Path) -> None:
    driver, address = browser(), link.partition("/#")[0]
    try:
        driver.get(address)
        assert "not signed in" in text_of(driver, "main")
        driver.get(link)  # on the page that is open already, as somebody would paste it
        until(driver, signed_in)
        assert "#" not in driver.current_url, "the secret does not stay in the address"
        complained = [one["message"] for one in driver.get_log("browser")]
        assert [message for message in complained if "401" not in message] == []
        for size, scheme in (((1280, 1000), "light"), ((1280, 1000), "dark"), ((390, 844), "light")):
            driver.execute_cdp_cmd(
                "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            )
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500},
            )
            for path in PAGES:
                driver.get(address + path)
                if path == "/tasks/notes":
                    until(driver, lambda here: here.execute_script("return document.documentElement.dataset.charts"))
                    assert driver.execute_script("return document.querySelectorAll('.plot canvas').length") == 6
                wide = driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, f"{path} is {wide} pixels wider than a window of {size}"
                assert driver.execute_script(CONTRASTS) == [], f"{path} in {scheme}"
                assert unnamed(driver) == [], path
                name = path.strip("/").replace("/", "-") or "overview"
                driver.save_screenshot(str(folder / f"{name}-{scheme}-{size[0]}.png"))
        complaints = [entry for entry in driver.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]
        assert complaints == []
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        reached_with_the_keyboard(driver, address)
    finally:
        driver.quit()


def unnamed(driver: Any) -> list[str]:
    """Controls and regions that a screen reader could not name."""
    from selenium.webdriver.common.by import By

    controls = driver.find_elements(By.CSS_SELECTOR, "button, input, select, textarea, progress, a, [role=region], nav")
    return [one.get_attribute("outerHTML") for one in controls if one.is_displayed() and not one.accessible_name]


def reached_with_the_keyboard(driver: Any, address: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    driver.get(address + "/tasks/notes")
    driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert driver.switch_to.active_element.text == "To the content"
    found = set()
    for _ in range(60):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        found.add(driver.switch_to.active_element.text)
    assert found >= {"Overview", "Settings", "Rounds", "Privacy", "all rounds", "60", "JSON"}
    driver.find_element(By.LINK_TEXT, "Rounds").send_keys(Keys.ENTER)
    until(driver, lambda here: here.current_url.endswith("/tasks/notes/rounds"))


async def test_a_round_is_watched_while_it_runs(served: Serving, tmp_path: Path) -> None:
    identity = served.parts.identity
    driver = await asyncio.to_thread(browser)
    address = f"https://127.0.0.1:{served.port}"
    try:
        async with aiohttp.ClientSession(address, connector=aiohttp.TCPConnector(ssl=False)) as http:
            devices = [Device(http, identity.descriptor, utc_now) for _ in range(3)]
            await asyncio.to_thread(driver.get, await login_link(served))
            await asyncio.to_thread(until, driver, signed_in)
            await asyncio.to_thread(driver.get, f"{address}/tasks/notes")
            await shows(driver, "Between rounds")
            code = await code_of(served)
            for device in devices:
                await device.enroll(code, label="ward desk")
            offers = await asyncio.gather(*(device.offer() for device in devices))
            await shows(driver, "Round 1", "Joining", "0 of 3")
            size = (await served.parts.store.tasks.tasks())[0].document.layout.size
            for device, offer in zip(devices, offers, strict=True):
                device.accept(offer)
            await devices[0].step("join", one_hot(size, 0))
            await shows(driver, "1 of 3")
            await asyncio.gather(*(device.step("join", one_hot(size, 0)) for device in devices[1:]))
            for name in ("shares", "ack"):
                await asyncio.gather(*(device.step(name, one_hot(size, 0)) for device in devices))
            await devices[0].step("upload", one_hot(size, 0))
            await devices[1].step("upload", one_hot(size, 1))
            await shows(driver, "Training and upload", "2 of 3")
            await asyncio.to_thread(driver.save_screenshot, str(tmp_path / "live.png"))
            await devices[2].step("upload", one_hot(size, 2))
            await asyncio.gather(*(device.step("unmask", one_hot(size, 0)) for device in devices))
            await shows(driver, "Between rounds")
            await asyncio.to_thread(driver.get, f"{address}/tasks/notes/rounds/1")
            source = await asyncio.to_thread(lambda: str(driver.page_source))
        assert "committed" in source
        assert not any(device.key.public.hex() in source for device in devices)
    finally:
        await asyncio.to_thread(driver.quit)


async def shows(driver: Any, *words: str) -> None:
    """Wait until the live card says all of these words."""

    def holds(here: Any) -> bool:
        said = text_of(here, "[sse-swap=now]")
        return all(word in said for word in words)

    await asyncio.to_thread(until, driver, holds)


async def code_of(served: Serving) -> str:
    from fedit_server.access.invites import Terms, create_invite
    from fedit_server.clock import unix_seconds

    parts = served.parts
    made = await create_invite(
        parts.store.members,
        parts.invite_salt,
        ("localhost", 1),
        parts.identity.pin,
        Terms(9, 3600),
        unix_seconds(utc_now()),
    )
    return made.link.code


async def test_a_task_is_checked_while_it_is_typed(served: Serving) -> None:
    link = await login_link(served)

    def type_in() -> None:
        from selenium.webdriver.common.by import By

        driver, address = browser(), link.partition("/#")[0]
        try:
            driver.get(link)
            until(driver, signed_in)
            driver.get(f"{address}/editor?task=notes")
            until(driver, lambda here: "nothing changes" in text_of(here, "#verdict"))
            box = driver.find_element(By.ID, "toml")
            driver.execute_script("arguments[0].value = arguments[0].value.replace('rounds = 2000', 'rounds = x')", box)
            box.send_keys(" ")
            until(driver, lambda here: "not valid TOML" in text_of(here, "#verdict"))
            driver.execute_script("arguments[0].value = arguments[0].value.replace('rounds = x', 'rounds = 9')", box)
            box.send_keys(" ")
            until(driver, lambda here: "Owners of devices will be asked about" in text_of(here, "#verdict"))
            assert "round.rounds" in text_of(driver, "#verdict table")
            driver.find_element(By.CSS_SELECTOR, "button.primary").click()
            until(driver, lambda here: "Published." in text_of(here, "main"))
            assert [entry for entry in driver.get_log("browser") if "401" not in entry["message"]] == []
        finally:
            driver.quit()

    await asyncio.to_thread(type_in)
    row = await served.parts.store.tasks.task(NOTES)
    assert row is not None
    assert (row.version, row.document.task.round.rounds) == (2, 9)


async def test_without_javascript_one_can_sign_in_and_read(served: Serving) -> None:
    await with_history(served, 30)
    link = await login_link(served)

    def read() -> None:
        from selenium.webdriver.common.by import By

        driver = browser(scripts=False)
        try:
            driver.get(link.partition("#")[0])
            driver.find_element(By.ID, "link").send_keys(link)
            driver.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
            until(driver, signed_in)
            driver.get(link.partition("#")[0] + "tasks/notes")
            assert "Between rounds" in text_of(driver, "main")
            assert "Curves need JavaScript" in text_of(driver, "main")
            assert "committed" in text_of(driver, "table")
        finally:
            driver.quit()

    await asyncio.to_thread(read)
