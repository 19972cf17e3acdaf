"""The replies of a recorded run, by prompt."""

import json

import pytest

from treeshare.experiments.export.recorded import RecordedReplies
from treeshare.llm_backend.api import Generate, Score
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.llm_backend.engines.replay import ReplayEngine


def test_texts_are_those_of_the_log(tmp_path):
    path = tmp_path / "requests.jsonl"
    texts = iter(["a", "ü 树", "line\nline", "d", "e"])
    engine = ReplayEngine(path, MockEngine(lambda *_: next(texts)))
    engine.execute({1: Generate(("p", "q"), 2)})
    engine.execute({2: Score(("pq",), ("x",)), 3: Generate("other", 1)})
    engine.execute({4: Generate("pq", 2, seed=1)})
    engine.close()
    with path.open("a") as file:
        file.write('{"key": "cut off')
    replies = RecordedReplies(path)
    assert replies.texts("pq") == ["a", "ü 树", "d", "e"]
    assert replies.texts("other") == ["line\nline"]
    assert replies.texts("unknown") == []


def test_without_a_file_there_are_none(tmp_path):
    assert RecordedReplies(tmp_path / "none.jsonl").texts("p") == []
    assert RecordedReplies(tmp_path).texts("p") == []


DAMAGED = ["[" * 100_000, "[]", "null", "{", '{"completions": 3}', '{"completions": [{}]}']
DAMAGED += ['{"completions": []}', "\udc80"]


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_lines_are_named(line, tmp_path):
    path = tmp_path / "requests.jsonl"
    good = json.dumps({"prompt": "p", "completions": []})
    path.write_text(f"{good}\n{line}\n", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"requests\.jsonl:2: not a recorded reply"):
        RecordedReplies(path).texts("p")
