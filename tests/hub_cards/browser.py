"""What the browser test needs besides the page: a browser, how one asks in it, how well it can be read, slowness."""

import os
import re
import shutil
import time
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

SCREENSHOTS = Path(__file__).parents[2] / "outputs" / "screenshots"
NO_QUESTION = "Type a question first."

# Every text that is shown, with its contrast to what lies behind it by the formula of WCAG 2. A canvas turns any
# notation of a colour into bytes.
CONTRASTS = """() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const bytes = color => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const over = (color, below, opacity = 1) => {
        const [r, g, b, a] = bytes(color);
        const share = a / 255 * opacity;
        return [r, g, b].map((value, i) => value * share + below[i] * (1 - share));
    };
    const behind = element => {
        if (!element) return [255, 255, 255];
        const circle = element.previousElementSibling;
        if (element.tagName === "text" && circle?.tagName === "circle")  // a number in its circle
            return over(getComputedStyle(circle).fill, behind(element.parentElement));
        return over(getComputedStyle(element).backgroundColor, behind(element.parentElement));
    };
    const opacity = element => element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
    const light = rgb => rgb
        .map(value => value / 255)
        .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
    const contrast = (color, element) => {
        const below = behind(element);
        const lights = [light(over(color, below, opacity(element))), light(below)];
        return (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
    };
    const texts = [];
    for (const element of document.querySelectorAll("body *:not(script, style, title, desc)")) {
        if (!element.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
        const style = getComputedStyle(element);
        const color = element instanceof SVGElement ? style.fill : style.color;
        const written = element.matches("input:not([type=radio], [type=range]), textarea");
        const nodes = [...element.childNodes].filter(node => node.nodeType === Node.TEXT_NODE);
        const text = written ? element.value : nodes.map(node => node.data).join("").trim();
        if (text) texts.push([text, contrast(color, element)]);
        if (written && !text && element.placeholder)
            texts.push([element.placeholder, contrast(getComputedStyle(element, "::placeholder").color, element)]);
    }
    return texts;
}"""


def find_chromium() -> str | None:
    """Path of a Chromium: `MINT_CHROMIUM`, or else the first of the usual names on the path."""
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    return os.environ.get("MINT_CHROMIUM") or next(filter(None, found), None)


def question_box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Question")


def status_box(page: Page) -> Locator:
    return page.locator("#status textarea")


def submit(page: Page, question: str) -> None:
    """Types a question in the place of what is there, and presses Enter."""
    question_box(page).fill(question)
    question_box(page).press("Enter")


def ask(page: Page, question: str) -> str:
    """
    Asks and waits for what comes of it. An empty question goes before, so that the status of the
    last one is not taken for this one's.

    Args:
        page (`Page`): the demo page.
        question (`str`): any text that is not empty.

    Returns:
        `str`: the last status.
    """
    submit(page, "")
    expect(status_box(page)).to_have_value(NO_QUESTION)
    submit(page, question)
    expect(status_box(page)).not_to_have_value(re.compile(rf"^{NO_QUESTION}$|…$"))
    return status_box(page).input_value()


def choose_strategy(page: Page, strategy: str) -> None:
    page.locator("#strategy").get_by_role("radio", name=f"{strategy}:").check()


def answer(page: Page) -> str:
    return page.locator("#answer").get_by_role("textbox").input_value()


def document_titles(page: Page) -> list[str]:
    """Titles of the documents that are shown, best first."""
    return page.locator("#documents summary bdi").all_inner_texts()


def faint_texts(page: Page, contrast: float = 4.5) -> list[tuple[str, float]]:
    """Texts that are shown with less contrast, which is a ratio between 1 and 21."""
    shown = page.evaluate(CONTRASTS)
    assert {"MINT", "Question", "Strategy", "Ask", "Answer", "Documents"} <= {text for text, _ in shown}
    return [(text, round(ratio, 2)) for text, ratio in shown if ratio < contrast]


def keep_screenshot(page: Page, name: str) -> None:
    """Writes a picture of the whole page to `SCREENSHOTS`."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


class Slowness:
    """Makes every forward pass of a model wait, for no time unless `seconds` is set, and counts them in `steps`."""

    def __init__(self):
        self.seconds = 0.0
        self.steps = 0

    def __call__(self, *_) -> None:
        self.steps += 1
        time.sleep(self.seconds)
