"""Rows of data sets: files, the Hugging Face hub, and directories that `datasets` saved.

Tests of the extra `datasets` use folders in place of the hub: `load_dataset` takes either.
"""

import json
import logging
import os
import sys

import pytest

from treeshare.tasks import MathProblems, MathVerifier, verifier_of
from treeshare.tasks.data import read_fields

ROWS = [
    {"question": "What is 1 + 1?", "answer": "So it is #### 2", "level": 1, "id": "a"},
    {"question": "What is {x} + 2?", "answer": "4", "level": 2, "id": "b"},
]
QUESTIONS = [row["question"] for row in ROWS]


def texts(path, name="question"):
    return [field.text for field in read_fields(str(path), name)]


def write(path, text):
    path.write_text(text)
    return str(path)


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The package, whose cache is below `tmp_path`, as the working directory is."""
    package = pytest.importorskip("datasets", reason="needs the extra `datasets`")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    package.disable_progress_bars()
    return package


def test_json_lines_and_a_json_list_have_the_same_rows(tmp_path):
    lines = write(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n")
    rows = write(tmp_path / "rows.json", "\ufeff " + json.dumps(ROWS, indent=1))
    lines_in_json = write(tmp_path / "lines.json", "\n".join(map(json.dumps, ROWS)))
    assert texts(lines) == texts(rows) == texts(lines_in_json) == QUESTIONS
    assert [field.where for field in read_fields(lines, "id")] == [f"{lines}:1", f"{lines}:2"]
    assert read_fields(rows, "id")[1].where == f"{rows}, row 1"


def test_numbers_keep_their_digits(tmp_path):
    path = write(tmp_path / "n.jsonl", '{"n": 1e-07}\n{"n": 0.10}\n{"n": 12345678901234567890}\n')
    assert texts(path, "n") == ["1e-07", "0.10", "12345678901234567890"]


def test_a_text_may_hold_any_line_end_of_unicode(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"q": "one\u2028two\x85"}\r\n{"q": "three"}\r\n'.encode())
    assert texts(path, "q") == ["one\u2028two\x85", "three"]


def test_a_file_is_parsed_once_and_again_when_it_is_replaced(tmp_path, monkeypatch):
    path = write(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, ROWS)))
    parsed = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda *args, **kw: parsed.append(1) or loads(*args, **kw))
    task = MathProblems(path, id="id", levels=[1, 2])
    verifier = verifier_of(task)
    assert len(parsed) == len(ROWS)
    assert [verifier.right_answer(problem) for problem in task.problems()] == ["2", "4"]
    write(tmp_path / "rows.jsonl", '{"question": "another?", "answer": 1}')
    assert texts(path) == ["another?"] and len(parsed) == len(ROWS) + 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "[]", "{path}: no problems; at least one line is needed"),
        ("x.json", '[{"a": 1}]', "{path}, row 0: no text or number in a field 'question'"),
        ("x.json", "[1,", "{path}: not JSON: Expecting value: line 1 column 4 (char 3)"),
        ("x.json", '{\n"question": "?"}', "{path}:1: not JSON: Expecting property name"),
        ("x.jsonl", "[]", "{path}:1: no text or number in a field 'question'"),
    ],
)
def test_a_bad_file_is_refused(name, content, message, tmp_path):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError) as error:
        read_fields(path, "question")
    assert str(error.value).startswith(message.format(path=path))


def test_a_missing_file_says_where_data_sets_are(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read_fields(str(tmp_path / "gsm8k.jsonl"), "question")
    assert "gsm8k.jsonl'; data sets of the Hugging Face hub" in str(error.value)
    assert "hf://openai/gsm8k/main/test" in str(error.value)


@pytest.mark.parametrize("path", ["hf://openai/gsm8k/main/test", "some", "some.parquet"])
def test_without_the_extra_it_is_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "some").mkdir()
    write(tmp_path / "some.parquet", "")
    with pytest.raises(ImportError, match=r'needs `pip install "treeshare\[datasets\]"`$'):
        read_fields(path, "question")


@pytest.mark.parametrize(
    "path", ["hf://gsm8k", "hf://gsm8k/test", "hf://a/b/c/d/e", "hf://a//main/test", "hf://"]
)
def test_another_form_of_the_hubs_path_is_refused(path):
    with pytest.raises(ValueError, match="is not hf://<data set>/<config>/<split>, such as hf://"):
        read_fields(path, "question")


def test_a_data_set_of_the_hub_is_loaded_once(tmp_path, datasets, monkeypatch):
    """The task and its verifier read the same rows; only the verifier has the answers."""
    owned = tmp_path / "owner/set"
    owned.mkdir(parents=True)
    write(owned / "test.jsonl", "\n".join(map(json.dumps, ROWS)))
    loaded = []
    load = datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *a, **kw: loaded.append((a, kw)) or load(*a, **kw)
    )
    path = "hf://owner/set/default/test"
    task = MathProblems(path, name="mine", id="id", levels=[2], level="level")
    verifier = MathVerifier(path, id="id")
    assert loaded == [(("owner/set", "default"), {"split": "test"})]
    (problem,) = task.problems()
    assert (problem.id, problem.data) == ("mine/b", QUESTIONS[1])
    assert verifier.check(problem, "4") and not verifier.check(problem, "2")
    assert ROWS[0]["answer"] not in repr(vars(task))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hf://here/default/train", "Unknown split \"train\". Should be one of ['test']."),
        ("hf://here/other/test", "BuilderConfig 'other' not found. Available: ['default']"),
        ("here", "Directory here is neither a `Dataset` directory nor a `DatasetDict` directory."),
        ("bad.parquet", "Parquet file size is 3 bytes, smaller than the minimum"),
    ],
)
def test_what_datasets_refuses_is_one_line(path, message, tmp_path, datasets):
    (tmp_path / "here").mkdir()
    write(tmp_path / "here/test.jsonl", json.dumps(ROWS[0]))
    write(tmp_path / "bad.parquet", "bad")
    with pytest.raises(OSError) as error:
        read_fields(path, "question")
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


def test_without_internet_it_is_one_line(datasets, monkeypatch):
    """The hub cannot be reached in offline mode, without the seconds of retries."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    client = logging.getLogger("huggingface_hub")
    level = client.level
    with pytest.raises(OSError) as error:
        read_fields("hf://openai/no-such-data-set/main/test", "question")
    message = str(error.value)
    assert message.startswith("hf://openai/no-such-data-set/main/test: ")
    assert message.endswith("without internet, give a file of JSON lines in place of this path")
    assert "\n" not in message and client.level == level


def test_saved_directories_and_parquet_are_read(tmp_path, datasets):
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=rows.select([0]), test=rows).save_to_disk(tmp_path / "splits")
    rows.to_parquet(tmp_path / "rows.parquet")
    for path in ("saved", "splits/test", "rows.parquet"):
        assert texts(path) == QUESTIONS
        assert texts(path, "level") == ["1", "2"]
    assert read_fields("saved", "id")[1].where == "saved, row 1"
    with pytest.raises(ValueError) as error:
        read_fields("splits", "question")
    named = f"{os.path.join('splits', 'train')}, {os.path.join('splits', 'test')}"
    assert str(error.value) == f"splits holds several splits; name one of {named}"
    with pytest.raises(ValueError, match=r"^saved: no field 'problem' among question, answer, "):
        read_fields("saved", "problem")


def test_values_of_datasets_are_checked_and_classes_have_names(tmp_path, datasets):
    rows = {
        "number": [27.0, 0.1],
        "class": ["Level 3", "Level 1"],
        "nothing": ["x", None],
        "nan": [1.0, float("nan")],
        "list": [[1], [2]],
    }
    made = datasets.Dataset.from_dict(rows)
    made = made.cast_column("class", datasets.ClassLabel(names=["Level 1", "Level 2", "Level 3"]))
    made.save_to_disk(tmp_path / "saved")
    assert texts("saved", "number") == ["27.0", "0.1"]
    assert texts("saved", "class") == ["Level 3", "Level 1"]
    for name, message in (
        ("nothing", "saved, row 1: no text or number in a field 'nothing'"),
        ("nan", "saved, row 1: the field 'nan' is nan, which is no number"),
        ("list", "saved, row 0: no text or number in a field 'list'"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            read_fields("saved", name)
