"""Exported solutions as examples."""

import json
from itertools import islice

import pytest

from treeshare.experiments.training.batches import Batches
from treeshare.experiments.training.examples import PREAMBLES, VOCABULARY, Example
from treeshare.experiments.training.exported import read_exported
from treeshare.experiments.training.small_llama import make_tokenizer

TOKENIZER = make_tokenizer(PREAMBLES, VOCABULARY)
LINES = [{"prompt": f"Numbers: {i}\nStep:", "completion": " 1 + 1 = 2"} for i in range(9)]


@pytest.fixture
def write(tmp_path):
    def to(lines):
        path = tmp_path / "lines.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines), errors="surrogateescape")
        return str(path)

    return to


def test_every_line_comes_once_before_any_comes_again(write):
    exported = read_exported(write(map(json.dumps, LINES)), TOKENIZER, 64)
    expected = {Example(line["prompt"], line["completion"]) for line in LINES}
    assert set(exported.lines) == expected and len(exported.lines) == 9
    drawn = list(islice(exported.examples((0, 1)), 18))
    assert set(drawn[:9]) == set(drawn[9:]) == expected
    assert drawn == list(islice(exported.examples((0, 1)), 18))
    assert drawn != list(islice(exported.examples((0, 2)), 18))


def test_tokens_are_counted_and_long_lines_left_out(write):
    long = {"prompt": "Step:", "completion": " 1" * 80}
    exported = read_exported(write(map(json.dumps, [*LINES, long])), TOKENIZER, 64)
    sizes = [
        len(TOKENIZER.encode(t["prompt"])) + len(TOKENIZER.encode(t["completion"])) for t in LINES
    ]
    assert exported.num_tokens == sum(sizes) + len(LINES)  # and a token that ends each
    assert (len(exported.lines), exported.num_too_long) == (9, 1)


def test_batches_learn_the_completions(write):
    exported = read_exported(write(map(json.dumps, LINES)), TOKENIZER, 64)
    tokens, _, weights = Batches(
        exported, TOKENIZER, 0, count=1, rows=2, length=64, verdict_weight=8
    )[0]
    learnt = TOKENIZER.decode(tokens[weights > 0])
    assert learnt.replace(" 1 + 1 = 2<end>", "") == ""
    assert learnt


BAD = ["{", "[]", "3", "null", '{"prompt": "a"}', '{"prompt": 3, "completion": "a"}', ""]
BAD += ['{"messages": []}', "[" * 100_000]


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_other_lines_are_refused_by_number(line, write):
    with pytest.raises(
        ValueError, match=r"lines\.jsonl:2 has no prompt with a completion, as .*text$"
    ):
        read_exported(write([json.dumps(LINES[0]), line]), TOKENIZER, 64)


def test_a_file_without_a_line_that_fits_is_refused(write):
    with pytest.raises(ValueError, match="none of 9 lines has at most 5 tokens"):
        read_exported(write(map(json.dumps, LINES)), TOKENIZER, 5)
    with pytest.raises(ValueError, match="none of 0 lines"):
        read_exported(write([]), TOKENIZER, 64)
