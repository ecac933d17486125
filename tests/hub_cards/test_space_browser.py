"""
The demo page in a real browser: asked by mouse, by keyboard and on a phone, in both colour schemes, by people who mean
well and by others. Pictures of it are kept in `outputs/screenshots`.
"""

import re
import socket
import time

import pytest
from datasets import Dataset
from playwright.sync_api import expect, sync_playwright

from hub_cards.space.app import Demo, build_app, serve
from modeling_mint import MintForConditionalGeneration, MintPipeline, MintProcessor
from tests.hub_cards.browser import (
    NO_QUESTION,
    Slowness,
    answer,
    ask,
    choose_strategy,
    document_titles,
    faint_texts,
    find_chromium,
    keep_screenshot,
    question_box,
    status_box,
    submit,
)
from tests.tiny import TITLES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_chromium() is None,
        reason="no Chromium here: install it (on Debian: apt-get install chromium) or name one in MINT_CHROMIUM",
    ),
]

QUERY = "Who designed the Eiffel Tower?"
TOPICS = {"Arts": [1, 2, 3, 4, 20], "Places": [5, 6, 7, 8, 9, 10]}
WIKIPEDIA = "https://en.wikipedia.org/wiki/{title}"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"
HOSTILE = {
    "<script>alert(1)</script>": "rag: retrieval",
    "<img src=x onerror=alert(1)>": "rag: retrieval",
    '"><svg onload=alert(1)> <a href="javascript:alert(1)">who</a>': "rag: retrieval",
    "{{ 7 * 7 }} ${alert(1)} <%= 7*7 %>": "rag: retrieval",
    "</textarea></title></style><script>alert(1)</script>": "rag: retrieval",
    "who " * 3000: "11,999 characters",
    "a" * 1999: "word of 1,999 characters",
    "👩‍👩‍👧‍👦🏳️‍🌈": "no letter or digit",
    "who is 👩‍🔬?": "rag: retrieval",
    "من صمم برج إيفل؟": "does not look like English",
    "\u202eleT reffiE\u202c who built it": "rag: retrieval",
    "谁设计了埃菲尔铁塔?" * 20: "does not look like English",
}


@pytest.fixture(scope="module")
def slowness():
    return Slowness()


@pytest.fixture(scope="module")
def address(models, slowness):
    """Address of the page, really served, over documents that are hostile too."""
    rag, gar = (MintForConditionalGeneration.from_pretrained(models / f"mint-{role}") for role in ("rag", "gar"))
    for model in (rag, gar):
        model.register_forward_pre_hook(slowness)
    collection = Dataset.from_dict({"title": TITLES, "text": [f"All about {title}. {MARKUP}" for title in TITLES]})
    processor = MintProcessor.from_pretrained(models / "mint-rag", collection=collection)
    pipeline = MintPipeline(model=rag, gar_model=gar, processor=processor)
    app = build_app(Demo(pipeline, TOPICS, WIKIPEDIA, "en"), [QUERY])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve(app, server_port=port, prevent_thread_lock=True, quiet=True)
    yield app.local_url
    app.close()


@pytest.fixture(scope="module")
def browser(address):
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium())
        yield chromium
        chromium.close()


@pytest.fixture
def troubles(caplog):
    """What went wrong in the page or behind it: nothing, when the test is over."""
    troubles = []
    yield troubles
    assert troubles == []
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


@pytest.fixture
def open_page(browser, address, troubles):
    """Opens the page on a device; without further arguments on a desk."""
    contexts = []

    def note(request):
        if not request.url.startswith((address, "data:", "blob:")):
            troubles.append(f"request to {request.url}")

    def refuse(dialog):
        troubles.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def open_in(**device):
        context = browser.new_context(**device)
        contexts.append(context)
        page = context.new_page()
        page.on("request", note)
        page.on("dialog", refuse)
        page.on("pageerror", lambda error: troubles.append(f"page error {error}"))
        page.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
        page.goto(address)
        expect(question_box(page)).to_be_editable()
        expect(page.get_by_text("Ask a question to see this.")).to_have_count(3)
        return page

    yield open_in
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page):
    return open_page()


def test_page_can_be_used_soon_and_asks_no_other_host(open_page, capsys):
    start = time.monotonic()
    page = open_page()
    seconds = time.monotonic() - start
    with capsys.disabled():
        print(f"\nThe demo page can be used {seconds:.2f} s after it was called up.")
    page.get_by_role("button", name="Ask").click()
    expect(status_box(page)).to_have_value(NO_QUESTION)


def test_question_gets_its_answer_and_documents(page):
    question_box(page).fill(QUERY)
    page.get_by_role("button", name="Ask").click()
    expect(status_box(page)).to_have_value(re.compile("^ensemble: retrieval .* answer .* Memory .* titles of"))
    assert answer(page) and 0 < float(page.locator("#confidence input").input_value()) <= 1
    titles = document_titles(page)
    assert len(titles) == 5 and set(titles) <= set(TITLES)
    expect(page.locator("#documents details[open]")).to_have_count(2)
    first = page.locator("#documents li").first
    expect(first).to_contain_text(f"All about {titles[0]}.")
    expect(first.get_by_role("link")).to_have_attribute("href", re.compile("^https://en.wikipedia.org/wiki/"))
    keep_screenshot(page, "desktop")


def test_example_is_asked_with_two_clicks(page):
    page.get_by_role("button", name=QUERY).click()
    expect(question_box(page)).to_have_value(QUERY)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#documents summary")).to_have_count(5)


def test_strategy_says_whose_answers_stand_side_by_side(page):
    cards = page.locator("#models .mint-card")
    for strategy, roles in {"ensemble": ["RAG", "GAR"], "rag": ["RAG"], "gar": ["GAR"]}.items():
        choose_strategy(page, strategy)
        assert ask(page, QUERY).startswith(f"{strategy}: retrieval")
        assert [heading[:3] for heading in cards.locator("h3").all_inner_texts()] == roles
        answers = cards.locator(".mint-answer").all_inner_texts()
        assert len(answers) == len(roles) and answer(page).split() in [one.split() for one in answers]


def test_decoding_tree_leads_to_the_documents(page):
    choose_strategy(page, "rag")
    ask(page, QUERY)
    picture = page.locator("#tree .mint-tree svg")
    expect(picture).to_have_count(1)
    leaves = picture.locator("text.mint-end.found").all_text_contents()
    assert {re.sub(r" <?[\d.]+%$", "", leaf) for leaf in leaves} == set(document_titles(page))
    expect(picture.locator("circle.mint-rank")).to_have_count(5)
    edge = picture.bounding_box()["x"] + picture.bounding_box()["width"]
    labels = [label.bounding_box() for label in picture.locator("text.mint-end").all()]
    assert all(label["x"] + label["width"] <= edge for label in labels)
    heading = page.get_by_role("button", name="The decoding tree")
    heading.click()
    expect(picture).to_be_hidden()
    heading.click()
    expect(picture).to_be_visible()
    page.get_by_text("As a table").click()
    for title in document_titles(page):
        expect(page.locator("#tree td").get_by_text(title, exact=True)).to_be_visible()


def test_topic_keeps_to_its_documents(page):
    for topic, rows in TOPICS.items():
        page.locator("#topic input").click()
        page.get_by_role("option", name=f"{topic} ({len(rows)})").click()
        ask(page, QUERY)
        titles = document_titles(page)
        assert len(titles) == 5 and set(titles) <= {TITLES[row] for row in rows}


def test_keyboard_is_enough(page):
    def press_tab_to(locator):
        for _ in range(60):
            if locator.evaluate("element => element === document.activeElement"):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {locator}.")

    page.evaluate("document.activeElement.blur()")
    press_tab_to(question_box(page))
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    expect(status_box(page)).to_have_value(re.compile("^ensemble: retrieval"))
    press_tab_to(page.get_by_role("radio", name="cascade"))
    page.keyboard.press("Space")
    press_tab_to(page.get_by_role("button", name="Ask", exact=True))
    page.keyboard.press("Enter")
    expect(status_box(page)).to_have_value(re.compile("^cascade: retrieval"))
    last = page.locator("#documents summary").last
    press_tab_to(last)
    page.keyboard.press("Enter")
    expect(page.locator("#documents details[open]")).to_have_count(3)
    press_tab_to(page.locator("#tree .mint-scroll").first)


def test_phone_shows_all_of_it_without_scrolling_sideways(open_page):
    page = open_page(**PHONE)
    for question in (QUERY, "w" * 99 + " " + QUERY):
        ask(page, question)
        page.get_by_text("As a table").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
        for part in ("question", "ask", "strategy", "topic", "status", "answer", "documents", "models", "tree-box"):
            box = page.locator(f"#{part}").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["viewport"]["width"], part
    keep_screenshot(page, "phone")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(open_page, scheme):
    page = open_page(color_scheme=scheme)
    expect(page.get_by_text("Use via API")).to_be_visible()
    assert faint_texts(page) == []
    ask(page, QUERY)
    page.get_by_text("As a table").first.click()
    assert faint_texts(page) == []
    keep_screenshot(page, scheme)


def test_hostile_questions_and_documents_stay_text_and_the_page_works_on(page):
    choose_strategy(page, "rag")
    for question, status in HOSTILE.items():
        assert status in ask(page, question), question
        assert "Traceback" not in page.locator("body").inner_text()
    ask(page, QUERY)
    expect(page.locator("#documents li").first).to_contain_text(MARKUP)
    assert answer(page) and len(document_titles(page)) == 5


@pytest.mark.parametrize("leave", ["reload", "close"])
def test_reader_who_leaves_stops_the_models_and_is_answered_when_back(open_page, slowness, troubles, leave):
    page = open_page()
    slowness.steps = 0
    ask(page, QUERY)
    whole, expected = slowness.steps, answer(page)
    slowness.steps, slowness.seconds = 0, 0.2
    try:
        submit(page, QUERY)
        expect(status_box(page)).to_have_value(re.compile("at work"))
        if leave == "reload":
            page.reload()
        else:
            page.close()
            page = open_page()
        # One second without a step of 0.2 seconds: the models have stopped.
        before = 0
        while before < slowness.steps:
            before = slowness.steps
            page.wait_for_timeout(1000)
        assert before < whole
    finally:
        slowness.seconds = 0.0
    # Gradio's client notes in the console that its connection was cut.
    assert all("AbortError" in one or "Connection errored out" in one for one in troubles)
    troubles.clear()
    expect(status_box(page)).to_have_value("")
    ask(page, QUERY)
    assert answer(page) == expected
