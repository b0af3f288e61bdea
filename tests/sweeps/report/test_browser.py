"""The results page in headless Chromium, opened from the disk and without a network."""

import contextlib
import itertools
import json
import shutil
import time

import pandas as pd
import pytest
from results_folders import TRACKED, copy_of_depth

from sweeps import catalog
from sweeps.report import document, page

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs a browser: apt-get install chromium chromium-driver",
)
WIDE, NARROW = (1400, 900), (390, 844)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page of a folder with the depth study on two data sets, and the batch sizes on the first.

    The second data set has one seed, of two layers at a rate of 0.01 and three layers at 0.003.
    """
    results = tmp_path_factory.mktemp("results")
    copy_of_depth(results)
    shutil.copytree(TRACKED / "mnist" / "batch_size", results / "mnist" / "batch_size")
    trials_path = copy_of_depth(results, "mnist_5k") / "trials.csv"
    trials = pd.read_csv(trials_path, dtype=str)
    trials = trials[(trials.seed == "0") & trials.depth.isin(["2", "3"])]
    rates = trials.learning_rate.where(trials.depth == "2", "0.003")
    trials.assign(learning_rate=rates).to_csv(trials_path, index=False)
    folders = document.studies(results)
    path = results / "index.html"
    path.write_text(page.render(results, folders, document.decide(folders)))
    return path.as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking"),
        "--host-resolver-rules=MAP * ~NOTFOUND",  # no name leads anywhere
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


@pytest.fixture
def open_page(chromium, address):
    """Opens the page with an anchor and a window size. Afterwards, no error may be in the log."""

    def open_page(anchor="", size=WIDE):
        chromium.get("about:blank")
        chromium.get_log("performance")
        chromium.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False},
        )
        chromium.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        chromium.get(address + anchor)
        wait(lambda: chromium.find_elements("css selector", "#steps-chart svg"))
        return chromium

    yield open_page
    assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []


def wait(condition, seconds=60):
    """Waits until a condition holds, and returns its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(Exception):  # elements come and go while a chart is drawn
            if value := condition():
                return value
        time.sleep(0.05)
    raise AssertionError("the page did not get there in time")


def run(driver, script, *arguments):
    return driver.execute_script(script, *arguments)


def choose(driver, form, **wanted):
    """Chooses values in a form by keyboard or mouse would fire the same events."""
    for name, value in wanted.items():
        run(
            driver,
            """
            const control = document.getElementById(arguments[0]).elements[arguments[1]];
            control.value = arguments[2];
            for (const kind of ["input", "change"])
              control.dispatchEvent(new Event(kind, {bubbles: true}));
            """,
            *(form, name, value),
        )


def shown(driver):
    """The listed claims' links."""
    return run(
        driver,
        "return [...document.querySelectorAll('#list li:not([hidden]) a')].map(a => a.hash)",
    )


def text(driver, css):
    return run(driver, "return document.querySelector(arguments[0]).innerText", css)


def test_the_first_screen_has_chart_paragraph_and_verdicts(open_page):
    driver = open_page()
    wait(lambda: driver.find_elements("css selector", "#headline-chart svg"))
    assert "training steps to reach 90% test accuracy" in text(driver, ".lead")
    for css in ("#headline-chart svg", ".lead", "#filters", "#list li"):
        box = run(
            driver, "return document.querySelector(arguments[0]).getBoundingClientRect()", css
        )
        assert 0 <= box["top"] < WIDE[1] - 40, css
    assert len(shown(driver)) == len(catalog.claims()) + 2  # depth has two claims on both data sets


def test_the_first_screen_takes_less_than_two_seconds(open_page):
    """Processor time until all charts are drawn, which other processes do not lengthen."""
    metrics = open_page().execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    seconds = {each["name"]: each["value"] for each in metrics}
    assert 0 < seconds["TaskDuration"] < 2, seconds


def test_nothing_is_loaded_but_the_page(open_page, address):
    driver = open_page("#claim-1")
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"].endswith("WillBeSent")]
    assert address in {url.partition("#")[0] for url in sent}
    others = {url for url in sent if url.partition("#")[0] != address}
    assert {url for url in others if not url.startswith(("data:", "blob:", "about:"))} == set()


def test_filters_change_the_list(open_page):
    driver = open_page()
    every = shown(driver)
    choose(driver, "filters", topic="depth")
    assert shown(driver) == ["#claim-1", "#claim-1-mnist_5k", "#claim-2", "#claim-2-mnist_5k"]
    choose(driver, "filters", dataset="mnist_5k")
    assert shown(driver) == ["#claim-1-mnist_5k", "#claim-2-mnist_5k"]
    assert text(driver, "#shown") == f"2 of {len(every)} verdicts are shown."
    choose(driver, "filters", verdict="reproduced")
    assert shown(driver) == []
    assert "No verdict fits" in text(driver, "#shown")
    driver.find_element("css selector", "#filters button").click()
    wait(lambda: shown(driver) == every)
    choose(driver, "filters", words="percentiles SIGMOID")
    assert shown(driver) == ["#claim-14"]
    choose(driver, "filters", words="", source="Wu & He 2018")
    assert shown(driver) == ["#claim-18"]


@pytest.mark.parametrize("anchor", ["#claim-2", "#claim-2-mnist_5k"])
def test_a_link_opens_its_claim(open_page, anchor):
    driver = open_page(anchor)
    assert run(driver, "return document.getElementById('claim-2').open")
    assert not run(driver, "return document.getElementById('claim-1').open")
    top = run(
        driver, "return document.querySelector(arguments[0]).getBoundingClientRect().top", anchor
    )
    assert -1 <= top < WIDE[1] / 2
    words = text(driver, "#claim-2")
    for part in ("at most 1.5 times", "python -m sweeps.depth --dataset=mnist", "trials.csv"):
        assert part in words
    wait(lambda: run(driver, "return document.querySelector('#claim-2 img').naturalWidth") > 300)


def test_a_claim_opens_by_keyboard(open_page):
    driver = open_page()
    link = driver.find_element("css selector", '#list a[href="#claim-1"]')
    run(driver, "arguments[0].focus()", link)
    link.send_keys("\n")
    wait(lambda: run(driver, "return document.getElementById('claim-1').open"))
    assert run(driver, "return document.activeElement.closest('details').id") == "claim-1"
    driver.switch_to.active_element.send_keys(" ")
    wait(lambda: not run(driver, "return document.getElementById('claim-1').open"))


def test_the_explorer_shows_other_trials_for_other_choices(open_page):
    driver = open_page("#explorer")
    trials = pd.read_csv(TRACKED / "mnist" / "depth" / "trials.csv", dtype={"trial_id": str})
    deep, shallow = (trials[trials.depth == depth] for depth in (trials.depth.max(), 1))
    assert text(driver, "#found").startswith(f"{len(deep)} trials are shown.")
    lines = "return document.querySelectorAll('#loss-chart .mark-line path').length"
    wait(lambda: run(driver, lines) == len(deep))
    for median in deep.groupby("batch_norm").steps_to_target.median():
        assert f"{median:g} [" in text(driver, "#settings")
    choose(driver, "choices", depth="1")
    for median in shallow.groupby("batch_norm").steps_to_target.median():
        assert f"{median:g} [" in wait(lambda: text(driver, "#settings"))
    ids = run(
        driver,
        "return [...document.querySelectorAll('#trial-table td:first-child')]"
        ".map(cell => cell.textContent)",
    )
    assert sorted(ids) == sorted(shallow.trial_id)


def test_a_long_legend_does_not_shrink_a_chart(open_page):
    driver = open_page("#explorer", NARROW)
    choose(driver, "choices", depth="3")
    choose(driver, "choices", experiment="batch size: budget 40 steps")
    wait(lambda: "ghost batches of 16" in text(driver, "#accuracy-chart"))
    assert "16.0" not in text(driver, "#accuracy-chart")
    for chart in ("loss", "accuracy", "steps"):
        svg = f"document.querySelector('#{chart}-chart svg')"
        scale = f"return {svg}.getBoundingClientRect().width / {svg}.viewBox.baseVal.width"
        assert run(driver, scale) > 0.9


def test_hovering_a_curve_names_its_trial(open_page):
    driver = open_page("#explorer")
    run(driver, "document.getElementById('loss-chart').scrollIntoView({block: 'center'})")
    chart = wait(lambda: driver.find_element("css selector", "#loss-chart svg"))
    actions = webdriver.ActionChains(driver, duration=0)

    def tooltip():
        actions.move_to_element_with_offset(chart, -20, 20).perform()
        actions.move_to_element_with_offset(chart, -40, 30).perform()
        return text(driver, "#vg-tooltip-element")

    words = wait(tooltip)
    run(driver, "document.querySelector('#trial-table').closest('details').open = true")
    ids = text(driver, "#trial-table")
    assert "trial" in words
    assert any(word in ids for word in words.split() if len(word) == 16)


def test_a_combination_that_was_not_run_says_so(open_page):
    driver = open_page("#explorer")
    choose(driver, "choices", dataset="mnist_5k")
    wait(lambda: text(driver, "#found").startswith("2 trials are shown."))
    assert "2 (not run)" in text(driver, "#choices [name=depth]")
    choose(driver, "choices", depth="2")
    assert "was not run" in text(driver, "#found")
    assert not run(driver, "return document.getElementById('trials').checkVisibility()")
    near = driver.find_elements("css selector", "#nearest button")
    assert [button.text for button in near] == ["learning rate 0.01", "hidden layers 3"]
    near[0].click()
    wait(lambda: text(driver, "#found").startswith("2 trials are shown."))
    assert "0.003 (not run)" in text(driver, "#choices [name=learning_rate]")


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_nothing_is_wider_than_the_screen(open_page, size):
    driver = open_page("#claim-1", size)
    width = run(driver, "return document.documentElement.scrollWidth")
    assert width <= size[0]


def test_everything_has_a_name_for_screen_readers(open_page):
    driver = open_page()
    nameless = run(
        driver,
        """
        const named = (e) => e.ariaLabel || e.innerText.trim() || e.labels?.length;
        const controls = [...document.querySelectorAll("button, select, input, a, summary")];
        const images = [...document.querySelectorAll("img")].filter((image) => !image.alt);
        const charts = [...document.querySelectorAll(".chart svg")]
          .filter((svg) => !(svg.ariaLabel || svg.querySelector("[aria-label]")));
        return [...controls.filter((e) => e.checkVisibility() && !named(e)), ...images, ...charts]
          .map((e) => e.outerHTML.slice(0, 200));
        """,
    )
    assert nameless == []
    assert run(driver, "return document.documentElement.lang") == "en"
    levels = run(
        driver,
        "return [...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))",
    )
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
