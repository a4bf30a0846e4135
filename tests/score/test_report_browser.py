"""The page of an evaluation in real headless Chromium, from a file and without a network."""

import base64
import json
import os
import re
import shutil
import time
from contextlib import contextmanager

import pytest
from support.synthetic_evaluation import synthetic_evaluation

from eosr.score import write_report
from eosr.score.report.formats import to_sheets
from eosr.score.report.study import paper_tables
from score.test_report import METHODS, evaluation, exhibit, told_evaluation

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
#: Width of the picture [px].
WIDTH = 1200


@contextmanager
def chromium(profile):
    """A browser without a window, that keeps what the console said and which addresses were asked for."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e '.[dev]'")
    from selenium.webdriver.chrome.service import Service

    if CHROMIUM is None or DRIVER is None:
        pytest.skip("Chromium is not here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    quiet = "--disable-background-networking"
    # Containers give a browser neither user namespaces (its sandbox) nor a large /dev/shm.
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--hide-scrollbars", quiet,
                     "--no-first-run", f"--user-data-dir={profile}", "--force-color-profile=srgb"):  # fmt: skip
        options.add_argument(argument)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield driver
    finally:
        driver.quit()


def open_page(driver, path, *, dark=False, width=1280, height=900):
    """Open a page in one colour scheme and at one size, once its script is done."""
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
    driver.get(path.as_uri())
    assert driver.execute_script("return document.documentElement.dataset.ready") == "yes"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A page with a hostile scene name and one exhibit of every kind."""
    shown = [exhibit(2, side60=10), exhibit(6, side60=10, seed=1), exhibit(2, side60=10, seed=2, native=True)]
    folder = tmp_path_factory.mktemp("page with a space")
    return write_report(evaluation(2, hostile=True), folder / "report.html", exhibits=shown)


@pytest.fixture
def page(browser, path):
    """The page, freshly opened; whatever a test does, nothing may reach the console or the network."""
    drain(browser)
    open_page(browser, path)
    yield browser
    said, asked = drain(browser)
    assert said == []
    assert [address for address in asked if not address.startswith(("file://", "data:"))] == []


def drain(driver):
    """What the console said, and the addresses that were asked for, since the last time."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [entry["message"] for entry in driver.get_log("browser")], asked


def run(driver, script, *arguments):
    return driver.execute_script(script, *arguments)


def column(driver, kind, heading):
    """Texts of one column of the first table of a kind, from top to bottom."""
    return run(driver, """
        const table = document.querySelector(`#tables table.${arguments[0]}`);
        const heads = [...table.tHead.rows[0].cells];
        const at = heads.findIndex((cell) => cell.textContent.trim().startsWith(arguments[1]));
        return [...table.tBodies[0].rows].map((row) => row.cells[at].textContent);
    """, kind, heading)  # fmt: skip


def press(driver, kind, heading, key):
    """Sort by the keyboard: focus a heading and press one key; returns the direction it then shows."""
    run(driver, """
        const heads = [...document.querySelectorAll(`#tables table.${arguments[0]} thead th`)];
        heads.find((cell) => cell.textContent.trim().startsWith(arguments[1])).focus();
    """, kind, heading)  # fmt: skip
    driver.switch_to.active_element.send_keys(key)
    return run(driver, "return document.activeElement.getAttribute('aria-sort')")


def numbers(texts):
    return [float(text.split()[0].replace("(best)", "")) for text in texts if not text.startswith("–")]


def test_nothing_reaches_the_console_or_the_network_while_the_page_is_read(page):
    """The checks stand in the fixture; here the console is shown to be heard at all."""
    run(page, "console.error('heard')")
    said, asked = drain(page)
    assert len(said) == 1
    assert "heard" in said[0]
    assert any(address.startswith("file://") for address in asked)
    # And the page's own policy refuses what it would not ask for.
    run(page, "new Image().src = 'https://example.org/x.png'")
    assert any("Content Security Policy" in line for line in drain(page)[0])


def test_tables_sort_by_number_in_both_directions_from_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys as keys

    before = numbers(column(page, "bands", "rmse"))
    assert min(before) < 100 < max(before)  # as text, 100 would come before 20
    assert before != sorted(before)
    assert press(page, "bands", "rmse", keys.ENTER) == "ascending"
    assert numbers(column(page, "bands", "rmse")) == sorted(before)
    assert press(page, "bands", "rmse", keys.SPACE) == "descending"
    assert numbers(column(page, "bands", "rmse")) == sorted(before, reverse=True)
    assert press(page, "bands", "Method", keys.ENTER) == "ascending"
    assert column(page, "bands", "Method") == sorted(column(page, "bands", "Method"))


def test_a_click_sorts_and_a_dash_stays_last_in_both_directions(page):
    run(page, "document.querySelector('#tables table.overall').tBodies[0].rows[0].cells[2].textContent = '–'")
    for _ in range(2):
        run(page, "document.querySelector('#tables table.overall thead th:nth-child(3)').click()")
        texts = column(page, "overall", "rmse")
        assert texts[-1] == "–"
        assert len(numbers(texts)) == len(texts) - 1
    assert numbers(texts) == sorted(numbers(texts), reverse=True)


def test_a_table_of_the_study_sorts_by_its_figures_and_keeps_marks_and_dashes(page, tmp_path):
    """SSIM of table 6.5: of print and measurement, three printed rows have none. Long notes wrap on a small screen."""
    sheets = to_sheets(paper_tables(synthetic_evaluation())[:1])
    beside = write_report(told_evaluation(), tmp_path / "beside.html", sheets=sheets)
    open_page(page, beside, width=360, height=740)
    assert run(page, "return document.documentElement.scrollWidth") <= 360
    texts = run(
        page,
        """
        const table = document.querySelector('#study table');
        const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === 'SSIM');
        table.tHead.rows[0].cells[at].click();
        table.tHead.rows[0].cells[at].click();
        return [...table.tBodies[0].rows].map((row) => row.cells[at].innerHTML);
    """,
    )
    found = [re.match(r"[\d.]+", text) for text in texts]
    values = [float(one[0]) for one in found if one]
    assert values == sorted(values, reverse=True)
    assert texts[len(values) :] == ["-"] * 3
    assert len(values) == 3 + 4
    assert [text for text in texts if text.startswith("0.9322")] == ["0.9322<sup>a</sup>"]


def test_another_setting_shows_its_own_table_caption_and_bars(page):
    first = column(page, "bands", "rmse")
    bars = run(page, "return Chart.getChart('bars-canvas').data.datasets.map((set) => set.data)")
    run(page, """
        const select = document.querySelector('#setting select[name=property]');
        select.value = 1;
        select.dispatchEvent(new Event('change', { bubbles: true }));
    """)  # fmt: skip
    assert "Consistency" in run(page, "return document.querySelector('#tables caption').textContent")
    assert numbers(column(page, "bands", "rmse")) == pytest.approx([x / 10 for x in numbers(first)], rel=1e-3)
    smaller = run(page, "return Chart.getChart('bars-canvas').data.datasets.map((set) => set.data)")
    assert smaller[0] == pytest.approx([value / 10 for value in bars[0]], rel=1e-4)
    assert run(page, "return Chart.getChart('bars-canvas').data.datasets.map((set) => set.label)") == list(METHODS)


def test_bars_show_another_metric_and_their_intervals(page):
    assert "bootstrap" in run(page, "return document.getElementById('bars-note').textContent")
    run(page, """
        const select = document.getElementById('bars-metric');
        select.value = [...select.options].find((option) => option.textContent === 'sre').value;
        select.dispatchEvent(new Event('change', { bubbles: true }));
    """)  # fmt: skip
    assert run(page, "return Chart.getChart('bars-canvas').options.scales.y.title.text") == "sre [dB], higher is better"


def slider_at(driver):
    """Value of the first slider, what it tells a screen reader, and the share that is really uncovered [%]."""
    return run(driver, """
        const slider = document.querySelector('img-comparison-slider');
        const handle = slider.shadowRoot.querySelector('.handle-container').getBoundingClientRect();
        const box = slider.getBoundingClientRect();
        return [slider.value, Number(slider.getAttribute('aria-valuenow')),
                100 * (handle.x + handle.width / 2 - box.x) / box.width];
    """)  # fmt: skip


def settled(driver, value):
    """Wait for the slider's transition of 0.1 s, then compare all three."""
    for _ in range(40):
        found = slider_at(driver)
        if abs(found[2] - value) < 1.5:
            break
        time.sleep(0.05)
    assert found[0] == pytest.approx(value, abs=1.5)
    assert found[1] == pytest.approx(value, abs=1.5)
    assert found[2] == pytest.approx(value, abs=1.5)


def slider_box(driver):
    return run(driver, """
        const slider = document.querySelector('img-comparison-slider');
        slider.scrollIntoView({ block: 'center', behavior: 'instant' });
        const box = slider.getBoundingClientRect();
        return [box.x, box.y, box.width, box.height];
    """)  # fmt: skip


def test_the_slider_moves_by_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys as keys

    settled(page, 50)
    run(page, "document.querySelector('img-comparison-slider').focus()")
    for key, value in ((keys.ARROW_RIGHT, 52), (keys.ARROW_LEFT * 3, 46), (keys.HOME, 0), (keys.ARROW_LEFT, 0),
                       (keys.END, 100), (keys.PAGE_DOWN, 90)):  # fmt: skip
        page.switch_to.active_element.send_keys(key)
        settled(page, value)


def test_the_slider_moves_by_the_pointer(page):
    x, y, width, height = slider_box(page)
    for kind, share in (("mousePressed", 0.5), ("mouseMoved", 0.4), ("mouseMoved", 0.2), ("mouseReleased", 0.2)):
        event = {"type": kind, "x": x + share * width, "y": y + height / 2, "button": "left", "buttons": 1}
        page.execute_cdp_cmd("Input.dispatchMouseEvent", {**event, "clickCount": 1})
    settled(page, 20)


def test_the_slider_moves_by_touch(page):
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        x, y, width, height = slider_box(page)
        for kind, share in (("touchStart", 0.5), ("touchMove", 0.6), ("touchMove", 0.8), ("touchEnd", None)):
            points = [] if share is None else [{"x": x + share * width, "y": y + height / 2}]
            page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        settled(page, 80)
    finally:
        page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


#: Decodes every image of a selector and tells its size and the number of its colours.
PIXELS = """
    const done = arguments[arguments.length - 1];
    Promise.all([...document.querySelectorAll(arguments[0])].map(async (image) => {
      await image.decode();
      const canvas = Object.assign(document.createElement('canvas'),
        { width: image.naturalWidth, height: image.naturalHeight });
      const context = canvas.getContext('2d');
      context.drawImage(image, 0, 0);
      const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
      return [canvas.width, canvas.height, new Set(pixels).size, pixels.reduce((a, b) => (a * 31 + b) >>> 0, 7)];
    })).then(done, (error) => done(String(error)));
"""


def test_error_maps_are_pictures_with_many_colours_and_one_scale(page):
    found = page.execute_async_script(PIXELS, "#exhibit-0 .grid img")
    assert [size[:2] for size in found] == [[60, 60]] * (1 + len(METHODS))
    assert all(colours > 20 for _, _, colours, _ in found)
    assert len({mark for *_, mark in found}) == len(found)
    low, high = run(page, "return ['low', 'high'].map((end) => document.querySelector(`.legend .${end}`).textContent)")
    assert low.replace("−", "+") == high
    before = run(page, "return document.querySelector('#exhibit-0 .grid img:last-of-type').src")
    run(page, """
        const band = document.querySelector('#exhibit-0 .maps .band');
        band.value = 5;
        band.dispatchEvent(new Event('change'));
    """)  # fmt: skip
    assert run(page, "return document.querySelector('#exhibit-0 .grid figcaption').textContent") == "B12 as measured"
    assert run(page, "return document.querySelector('#exhibit-0 .grid img:last-of-type').src") != before
    assert run(page, "return document.querySelectorAll('#exhibit-2 .grid').length") == 0


def test_both_sides_of_the_slider_show_what_is_chosen(page):
    left, right = page.execute_async_script(PIXELS, "#exhibit-2 img-comparison-slider img")
    assert left[:2] == right[:2] == [60, 60]
    assert left[3] != right[3]
    alts = run(page, "return [...document.querySelectorAll('#exhibit-2 img-comparison-slider img')].map((i) => i.alt)")
    assert alts == ["B12, B8A, B04 as given", f"B12, B8A, B04 {METHODS[-1]}"]
    run(page, """
        const colours = document.querySelector('#exhibit-2 .colours');
        colours.value = [...colours.options].find((option) => option.text.startsWith('Natural')).value;
        colours.dispatchEvent(new Event('change'));
    """)  # fmt: skip
    left, right = page.execute_async_script(PIXELS, "#exhibit-2 img-comparison-slider img")
    assert left == right
    assert "delivered as they were measured" in run(
        page, "return document.querySelector('#exhibit-2 .slide-note').textContent"
    )


def test_spectra_and_power_spectra_are_drawn_and_the_end_of_detail_is_told(page):
    series = run(page, """
        return ['.spectra', '.power'].map((part) =>
          Chart.getChart(document.querySelector(`#exhibit-0 ${part} canvas`)).data.datasets.map((set) => set.label));
    """)  # fmt: skip
    assert set(series[0]) == {"as given", "as measured", *METHODS}
    assert set(series[1]) == {*series[0], *(f"error of {method}" for method in METHODS)}
    told = run(page, "return [...document.querySelectorAll('#exhibit-0 .noise li')].map((item) => item.textContent)")
    assert len(told) == len(METHODS)
    assert all(line.startswith(method) for line, method in zip(told, METHODS, strict=True))
    inks = run(page, """
        return [...document.querySelectorAll('canvas')].map((canvas) => {
          const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          return new Set(new Uint32Array(pixels.buffer)).size;
        });
    """)  # fmt: skip
    assert len(inks) == 1 + 2 * 3
    assert min(inks) > 20
    labels = run(page, "return [...document.querySelectorAll('canvas')].map((canvas) => canvas.ariaLabel)")
    assert all(labels)


def ground(driver):
    return run(driver, "return getComputedStyle(document.body).backgroundColor")


def ink(driver):
    return run(driver, "return Chart.getChart('bars-canvas').options.scales.x.ticks.color")


def test_the_page_follows_the_system_and_its_button_overrules_it(page, path):
    light = ground(page), ink(page)
    run(page, "document.getElementById('theme').click()")
    dark = ground(page), ink(page)
    assert all(a != b for a, b in zip(light, dark, strict=True))
    open_page(page, path, dark=True)
    assert (ground(page), ink(page)) == dark
    run(page, "document.getElementById('theme').click()")
    assert (ground(page), ink(page)) == light


def test_text_is_at_least_four_and_a_half_times_as_bright_as_its_ground_in_both_schemes(page, path):
    for dark in (False, True):
        open_page(page, path, dark=dark)
        for name in ("--text", "--quiet", "--accent"):
            for behind in ("--ground", "--raised"):
                colours = run(page, "return arguments[0].map((name) => getComputedStyle(document.documentElement)"
                                    ".getPropertyValue(name).trim())", [name, behind])  # fmt: skip
                assert contrast(*colours) >= 4.5, (dark, name, behind)


def contrast(a, b):
    """Ratio of relative luminances, WCAG 2.1."""
    found = []
    for colour in (a, b):
        levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
        found.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(found) / min(found)


def test_a_small_screen_scrolls_tables_and_not_the_page(page, path):
    open_page(page, path, width=360, height=740)
    assert run(page, "return document.documentElement.scrollWidth") <= 360


def test_a_table_too_wide_for_the_page_breaks_no_name_in_the_middle(page):
    """Thirty more columns; a name of one word stays on one line, as high as a number."""
    heights = run(page, """
        const table = document.querySelector('#tables table.overall');
        for (let i = 0; i < 30; i++) {
          for (const row of table.rows) row.append(row.cells[row.cells.length - 1].cloneNode(true));
        }
        const row = table.tBodies[0].rows[0];
        row.cells[0].textContent = 'detail_injection';
        const range = document.createRange();
        range.selectNodeContents(row.cells[0]);
        return [range.getClientRects().length, table.scrollWidth > document.querySelector('main').clientWidth];
    """)  # fmt: skip
    assert heights == [1, True]


def test_the_page_prints_light_and_without_its_controls(page):
    run(page, "document.getElementById('theme').click(); dispatchEvent(new Event('beforeprint'))")
    assert ground(page) == "rgb(255, 255, 255)"
    run(page, "dispatchEvent(new Event('afterprint'))")
    assert ground(page) != "rgb(255, 255, 255)"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert run(page, "return getComputedStyle(document.getElementById('theme')).display") == "none"
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def photograph(driver, path, picture):
    """Write a picture of the scores and of the first exhibit down to its error maps, without the long tables."""
    open_page(driver, path, width=WIDTH)
    end = run(driver, """
        for (const table of document.querySelectorAll("#tables table:not(.overall)")) table.closest(".wide").remove();
        const last = document.querySelector(".exhibit .maps") ?? document.getElementById("scores");
        return last.getBoundingClientRect().bottom + scrollY + 16;
    """)  # fmt: skip
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": end, "scale": 1}
    how = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    picture.write_bytes(base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", how)["data"]))


def test_a_picture_of_the_page_can_be_taken(page, path, tmp_path):
    """For benchmarks/report_picture.py, which takes the picture of docs/images."""
    photograph(page, path, tmp_path / "report.png")
    taken = (tmp_path / "report.png").read_bytes()
    assert 20_000 < len(taken) < 600_000
    width, height = (int.from_bytes(taken[at : at + 4], "big") for at in (16, 20))
    assert width == WIDTH
    assert 1000 < height < 3000
