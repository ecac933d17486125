import pytest
from datasets import Dataset

from dataset_builders.titles import clean_text, kilt_section_titles, load_redirects, normalize_title, resolve_title


@pytest.mark.parametrize(
    ("raw", "normalized"),
    [
        ("Eiffel_Tower", "Eiffel Tower"),
        ("  Eiffel \t\n Tower ", "Eiffel Tower"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("A\x00B\x7f", "AB"),
        ("A \x07 B", "A B"),
        ("\x00", ""),
        ("\u200b\ufeff", ""),
        ("A\x0cB", "A B"),
        ('مرحبا 🙂 "x"', 'مرحبا 🙂 "x"'),
    ],
)
def test_titles_that_look_alike_become_one_docid(raw, normalized):
    assert normalize_title(raw) == normalized
    assert normalize_title(normalized) == normalized


def test_control_characters_between_words_leave_a_space_and_others_nothing():
    assert clean_text("one\x0ctwo\rthree\r\nfour\x00five\tsix\ud800\u0301") == "one two three\nfourfive\tsix\u0301"


@pytest.mark.parametrize(
    ("section", "titles"),
    [
        ("Section::::History.", ["History"]),
        ("Section::::History", ["History"]),
        ("Section::::Life in the U.S..:Later years.\n", ["Life in the U.S.", "Later years"]),
        ("Section::::Abstract.", []),
        ("", []),
        ("Abstract", ["Abstract"]),
        ("In the U.S.", ["In the U.S."]),
    ],
)
def test_kilt_sections_are_read_as_headings_from_the_page_down(section, titles):
    assert kilt_section_titles(section) == titles


@pytest.fixture
def write_redirects(write_lines, tmp_path):
    """Writes redirects in one of the forms that are read, and returns the path."""

    def write(form, *redirects):
        if form == "json":
            return write_lines("redirects.json", dict(redirects))
        rows = [{"title": alias, "redirect": title} for alias, title in redirects]
        if form == "jsonl":
            return write_lines("redirects.jsonl", *rows)
        Dataset.from_list(rows).to_parquet(tmp_path / "redirects.parquet")
        return str(tmp_path / "redirects.parquet")

    return write


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet"])
def test_redirects_lead_to_the_end_of_their_chain(write_redirects, form):
    redirects = load_redirects(
        write_redirects(form, ("B", "C_D"), ("A ", "B"), ("C  D", "E"), ("x_y", "x y"), ("Cafe\u0301", "Bar"))
    )
    assert redirects == {"A": "E", "B": "E", "C D": "E", "Caf\u00e9": "Bar"}
    titles = ["A", "_B", "C_D", "E", "x_y", "Caf\u00e9"]
    assert [resolve_title(title, redirects) for title in titles] == ["E", "E", "E", "E", "x y", "Bar"]


def test_a_long_chain_of_redirects_is_followed(write_redirects):
    redirects = load_redirects(write_redirects("json", *((str(i), str(i + 1)) for i in range(100_000))))
    assert redirects["0"] == redirects["99999"] == "100000"


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("redirects", "message"),
    [
        ([("A", "B"), ("B", "C_"), ("C", "D"), ("D", "B")], "cycle, B -> C -> D -> B. Break it"),
        ([("A", "B"), ("C", " _")], "(alias 'C'|line 2|row 1): a redirect needs two titles, one is empty"),
        ([("A", "B"), ("C", None)], "(alias 'C'|line 2|row 1): a redirect needs two titles as strings"),
        ([("A_A", "B"), ("A A", "C")], "(alias 'A A'|line 2|row 1): 'A A' leads to 'B' and to 'C'"),
    ],
)
def test_redirects_that_lead_nowhere_are_refused(write_redirects, form, redirects, message):
    with pytest.raises(ValueError, match=message):
        load_redirects(write_redirects(form, *redirects))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.json", "{", r"r\.json: not valid JSON .*\.jsonl"),
        ("r.json", "[]", r"r\.json: expected one JSON object of alias -> title"),
        ("r.jsonl", "[]", r"r\.jsonl, line 1: expected a JSON object"),
        ("r.jsonl", '{"alias": "A"}', r"r\.jsonl, line 1: a redirect needs two titles as strings"),
    ],
)
def test_a_malformed_table_of_redirects_is_refused(write_lines, name, text, message):
    with pytest.raises(ValueError, match=message):
        load_redirects(write_lines(name, text))


def test_a_parquet_table_without_redirects_is_refused(tmp_path):
    Dataset.from_list([{"title": "A"}]).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(ValueError, match=r"r\.parquet: no column 'redirect'"):
        load_redirects(tmp_path / "r.parquet")
