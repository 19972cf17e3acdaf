"""Which puzzles of a run are left out, and why."""

import json

import pytest

from treeshare.experiments.export.exported_runs import Counts, lines_of_run, read_run
from treeshare.experiments.export.lines import LineOptions


def skipped(directory, allow_test=False, **options):
    run = read_run(directory, trust=False, allow_test=allow_test)
    counts = Counts()
    lines = list(lines_of_run(run, LineOptions(**{"format": "sft", **options}), counts))
    return lines, dict(counts.skipped)


def remove_trees(directory, edit):
    for path in (directory / "trees").iterdir():
        path.unlink()


def change_data(directory, edit):
    edit(directory / "results.jsonl", lambda row: row.update(digest="0" * 32))


def change_puzzle(directory, edit):
    edit(directory / "results.jsonl", lambda row: row.update(problem=f"{row['problem']}-5"))


def change_marks(directory, edit):
    edit(
        directory / "results.jsonl", lambda row: row.update(correct=[not c for c in row["correct"]])
    )


def merge_nodes(directory, edit):
    def merge(tree):
        tree["edges"].append({"source": 0, "target": len(tree["nodes"]) - 1, "order": 1})

    for path in (directory / "trees").iterdir():
        edit(path, merge)


def change_texts(directory, edit):
    for path in (directory / "trees").iterdir():
        edit(path, lambda tree: [node.update(text="?") for node in tree["nodes"]])


REASONS = {
    remove_trees: "its tree was not saved",
    change_data: "its data have changed since it was searched",
    change_puzzle: "the task does not have it; was task.limit larger in a later session?",
    change_marks: "the verifier marks an answer otherwise than the run did",
    merge_nodes: "a step merges several nodes",
    change_texts: "its steps cannot be read from its tree; whole solutions need a run with "
    "record=true",
}


@pytest.mark.parametrize("format", ["sft", "preferences", "steps"])
@pytest.mark.parametrize("change", REASONS, ids=lambda change: change.__name__)
def test_puzzles_that_cannot_be_read_are_counted(change, format, solved, edit):
    assert skipped(solved, format=format)[1] == {}
    change(solved, edit)
    assert skipped(solved, format=format) == ([], {REASONS[change]: 2})


def test_unfinished_puzzles_are_left_out(solved):
    lines, _ = skipped(solved)
    path = solved / "results.jsonl"
    first = path.read_text().splitlines()[0]
    path.write_text(f"{first}\n")
    fewer, _ = skipped(solved)
    assert fewer == [line for line in lines if line["problem"] == json.loads(first)["problem"]]
    assert 0 < len(fewer) < len(lines)


def test_a_test_split_is_refused(searched):
    directory = searched("task.limit=2", "evaluator=oracle")
    with pytest.raises(ValueError, match=r"task\.split=test is a test split, .*; --allow-test"):
        skipped(directory)
    lines, reasons = skipped(directory, allow_test=True)
    assert len({line["problem"] for line in lines}) == 2 and not reasons


def test_games_of_the_test_split_are_left_out(searched):
    directory = searched(
        *("task.split=all", "task.start=898", "task.limit=4", "evaluator=oracle"),
        *("search.breadth=1", "expander.width=3"),
    )
    _, reasons = skipped(directory)
    assert reasons["it is of the task's test split; --allow-test exports it"] == 2
    assert not any("test" in reason for reason in skipped(directory, allow_test=True)[1])


def test_values_that_do_not_differ_make_no_pairs(solved):
    _, reasons = skipped(solved, format="preferences", margin=2.0)
    assert reasons == {"no two steps of one node differ enough in their values": 2}


DAMAGED = ["{", "[]", '{"graph": {}, "nodes": [], "edges": []}', '{"graph": {}, "nodes": 3}']
DAMAGED += ["[" * 100_000, '{"graph": {}, "nodes": [{"id": 0}], "edges": [{"source": 0}]}']


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_files_that_are_no_trees_are_named(text, solved):
    path = next((solved / "trees").iterdir())
    path.write_text(text)
    with pytest.raises(ValueError) as info:
        skipped(solved)
    assert str(info.value).startswith(f"{path} is not a tree: ")
    assert "\n" not in str(info.value)


def test_shards_are_named_by_their_run(searched):
    parts = ["task=countdown", "task.numbers=3", "task.limit=4", "evaluator=oracle"]
    directory = searched(*parts, "task.shard=1/2")
    lines, _ = skipped(directory)
    run = directory.parents[1].name
    assert {line["run"] for line in lines} == {f"{run}, shard {directory.name}"}
