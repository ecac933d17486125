import logging

import pytest

from dataset_builders.json_lines import MalformedLines, read_json_lines, split_lines

LINES = ['{"id": 1}', "", '{"id": ', '{"id": 4}', "[5]", '{"id": 6}', "[" * 100_000]


def test_without_a_count_the_first_malformed_line_raises(write_lines):
    records = read_json_lines(write_lines("records.jsonl", *LINES))
    assert next(records)[1] == {"id": 1}
    with pytest.raises(ValueError, match=r"records\.jsonl, line 3: not valid JSON .* Mend or delete this line"):
        next(records)


def test_malformed_lines_are_left_out_and_counted_with_their_line_numbers(write_lines, caplog):
    path, malformed = write_lines("records.jsonl", *LINES), MalformedLines(limit=3)
    assert [record["id"] for _, record in read_json_lines(path, malformed)] == [1, 4, 6]
    assert malformed.places == [f"{path}, line {number}" for number in (3, 5, 7)]
    with caplog.at_level(logging.WARNING):
        malformed.log("records")
    assert [record.getMessage() for record in caplog.records] == [
        f"records: 3 malformed records left out: {path}, line 3; {path}, line 5; {path}, line 7"
    ]


def test_one_more_than_the_limit_is_refused_with_the_first_places(write_lines):
    path = write_lines("records.jsonl", *LINES)
    with pytest.raises(ValueError, match=r"More than 1 malformed records: \S+, line 3; \S+, line 5\. .*found list"):
        list(read_json_lines(path, MalformedLines(limit=1)))


def test_of_many_malformed_lines_ten_are_named(caplog):
    malformed = MalformedLines(limit=12)
    for number in range(12):
        malformed.add(f"line {number}", "bad")
    malformed.log("records")
    assert "12 malformed records" in caplog.text and "line 9; ..." in caplog.text and "line 10" not in caplog.text


def test_nothing_is_said_of_no_malformed_lines(caplog):
    MalformedLines(limit=1).log("records")
    assert not caplog.records


@pytest.mark.parametrize("end", ["", "\n", "\r\n\n"])
@pytest.mark.parametrize("num_bytes", [1, 9, 25, 1000])
def test_parts_give_the_lines_of_the_whole_with_their_numbers(tmp_path, num_bytes, end):
    path = tmp_path / "records.jsonl"
    lines = [f'{{"id": {"1" * (i * 7 % 30 + 1)}}}' for i in range(20)]
    path.write_bytes(("\n".join(lines[:7] + ["", ""] + lines[7:]) + end).encode())
    parts = split_lines(path, num_bytes)
    assert [record for part in parts for record in read_json_lines(path, part=part)] == list(read_json_lines(path))
    assert parts[0].start == 0 and parts[-1].stop == path.stat().st_size
    assert all(one.stop == other.start for one, other in zip(parts, parts[1:], strict=False))
    assert len(parts) == 1 if num_bytes == 1000 else len(parts) > 5


def test_an_empty_file_has_no_parts(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    assert split_lines(tmp_path / "empty.jsonl") == []
