import pytest

from dataset_builders.titles import kilt_section_titles, normalize_title


@pytest.mark.parametrize(
    ("raw", "normalized"),
    [
        ("Eiffel_Tower", "Eiffel Tower"),
        ("  Eiffel \t\n Tower ", "Eiffel Tower"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("A\x00B\x7f", "AB"),
        ("A \x07 B", "A B"),
        ("\x00", ""),
        ('مرحبا 🙂 "x"', 'مرحبا 🙂 "x"'),
    ],
)
def test_titles_that_look_alike_become_one_docid(raw, normalized):
    assert normalize_title(raw) == normalized
    assert normalize_title(normalized) == normalized


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
