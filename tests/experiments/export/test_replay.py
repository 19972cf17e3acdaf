"""Saved trees are read again: states, texts, marks, counts."""

import json
from itertools import product

import pytest
from task_options import task_options

from treeshare.experiments.export.exported_runs import read_run
from treeshare.experiments.export.recorded import RecordedReplies
from treeshare.experiments.export.replay import NotReplayed, Replay
from treeshare.tasks import ParseFailure

WORDS = "h2. canoe\nh1. scent\nh3. arson\nh5. fleet\nh4. rouse"
ORACLE = ["evaluator=oracle", "task.limit=2"]
SORTED = [str(sorted(numbers)) for numbers in product(range(3), repeat=3)]
RUNS = {
    "choose": ["task=game24", *ORACLE],
    "countdown": ["task=countdown", "task.numbers=3", *ORACLE],
    "propose": [
        *("task=game24", "expander=propose", *ORACLE),
        "engine.replies=['1 / 5 = 1/5\n5 - 1/5 = 24/5\n24/5 * 5 = 24']",
    ],
    "blocksworld": ["task=blocksworld", "task.blocks=3", "task.moves=2", *ORACLE],
    "math": [*task_options("math"), "engine.replies=['It holds 24.','Answer: 19']", *ORACLE],
    "crosswords": [*task_options("crosswords"), f"engine.replies=['{WORDS}']", *ORACLE],
    "sorting": [
        *("task=sorting", "task.size=3", "task.part_size=1", "task.largest=2", *ORACLE),
        *("search.depth=1", "search.num_samples=40", f"engine.replies={[*SORTED]}"),
    ],
    "mcts": ["task=countdown", "task.numbers=4", "search=mcts", *ORACLE],
    "recorded": [
        *("task=game24", "search=cot_sc", "search.num_samples=6", "record=true", "task.limit=2"),
        "engine.replies=['Answer: 5 * 5 - 1 / 1', 'Step: 5 * 5 = 25\nAnswer: 5 * 5 - 1 * 1 = 24',"
        "'Answer: (5 - 1 / 5) * 5', 'no']",
    ],
}


def replayed(directory, number=0):
    """The replay of a run, and the tree of one of its puzzles with its data."""
    run = read_run(directory, trust=False, allow_test=True)
    replay = Replay(run.task, RecordedReplies(directory / "requests.jsonl"))
    row = run.files.results.rows[number]
    data = json.loads(run.files.tree_path(row.problem).read_text())
    return run.task, replay, replay.tree(run.task.problems[row.problem], row, data), data


@pytest.fixture(params=RUNS, scope="module")
def trees(request, searched):
    """The trees of a run of two puzzles."""
    directory = searched(*RUNS[request.param])
    return [replayed(directory, number) for number in range(2)]


def test_every_task_and_expander_is_read_again(trees):
    assert not any(tree.num_unread for _, _, tree, _ in trees)
    for run, _, tree, data in trees:
        for node in tree.nodes:
            saved = data["nodes"][node.id]
            assert str(node.state) == saved["state"]
            assert node.is_terminal == saved["is_terminal"]
            answer = run.task.answer(node.state)
            right = answer is not None and run.verifier.check(tree.problem, answer)
            assert node.is_right == right
    assert any(node.is_right for _, _, tree, _ in trees for node in tree.nodes)


def test_whole_texts_are_replies_with_the_right_answer(trees):
    number_of_texts = 0
    for run, replay, tree, _ in trees:
        for leaf in tree.nodes:
            if leaf.is_right:
                text = replay.whole_text(tree, leaf)
                steps = run.task.parse("cot", tree.nodes[0].state, text)
                assert not isinstance(steps, ParseFailure)
                assert run.verifier.check(tree.problem, run.task.answer(steps[-1].state))
                number_of_texts += 1
    assert number_of_texts


def test_texts_continue_the_prompts_of_their_parents(searched):
    run, replay, tree, _ = replayed(searched(*RUNS["choose"]))
    leaf = next(node for node in tree.nodes if node.is_right)
    assert len(leaf.path) == 3
    for node in leaf.path:
        prompt = "".join(run.task.prompt("step", node.state))
        assert prompt.startswith(f"{node.prompt}{node.text}\n")
    text = replay.whole_text(tree, leaf)
    lines = text.split("\n")
    assert [line.removeprefix("Step:") for line in lines[:3]] == [n.text for n in leaf.path]
    assert lines[3] == f"Answer: {run.task.answer(leaf.state)} = 24"


def test_counts_are_those_of_the_tree(searched):
    _, _, tree, data = replayed(searched(*RUNS["mcts"]))
    children = {}
    for edge in data["edges"]:
        children.setdefault(edge["source"], []).append(edge["target"])

    def below(number):
        return [number, *(n for child in children.get(number, []) for n in below(child))]

    right = {node.id for node in tree.nodes if node.is_right}
    assert right
    for node in tree.nodes:
        terminal = [n for n in below(node.id) if data["nodes"][n]["is_terminal"]]
        assert node.num_terminal == len(terminal)
        assert node.num_right == len(right.intersection(terminal))
        assert node.share == (
            len(right.intersection(terminal)) / len(terminal) if terminal else None
        )
        saved = data["nodes"][node.id]
        if saved["visits"] and node.parent is not None:
            assert node.value == saved["value_sum"] / saved["visits"]


def test_recorded_replies_are_the_texts_of_whole_solutions(searched):
    directory = searched(*RUNS["recorded"])
    rows = map(json.loads, (directory / "requests.jsonl").read_text().splitlines())
    replies = {row["prompt"]: [c["text"] for c in row["completions"]] for row in rows}
    for number in range(2):
        _, _, tree, _ = replayed(directory, number)
        drawn = [node for node in tree.nodes if node.is_whole]
        assert len(drawn) == len(tree.nodes) - 1
        (texts,) = (replies[prompt] for prompt in {node.prompt for node in drawn})
        # in the order in which they were drawn, each once; "no" is no solution
        assert [node.text for node in drawn] == [text for text in texts if text != "no"]


def test_whole_solutions_without_a_record_are_unread(searched):
    overrides = [text for text in RUNS["recorded"] if text != "record=true"]
    _, _, tree, data = replayed(searched(*overrides))
    assert tree.num_unread == len(data["nodes"]) - 1 > 0


def broken(directory, edit, change):
    """Read a tree after a change of its file."""
    path = sorted((directory / "trees").iterdir())[0]
    edit(path, change)
    run = read_run(directory, trust=False, allow_test=True)
    data = json.loads(path.read_text())
    row = next(r for r in run.files.results.rows if r.problem == data["graph"]["problem"])
    replay = Replay(run.task, RecordedReplies(directory / "requests.jsonl"))
    return replay.tree(run.task.problems[row.problem], row, data)


def test_what_cannot_be_read_is_left_out(solved, edit):
    tree = broken(solved, edit, lambda data: data["nodes"][1].update(state="9 9 9"))
    assert tree.num_unread > 0
    assert 1 not in [node.id for node in tree.nodes]


def test_merged_nodes_are_refused(solved, edit):
    def merge(data):
        data["edges"].append({"source": 0, "target": len(data["nodes"]) - 1, "order": 1})

    with pytest.raises(NotReplayed, match="merges"):
        broken(solved, edit, merge)


def test_another_root_is_refused(solved, edit):
    with pytest.raises(NotReplayed, match="another now"):
        broken(solved, edit, lambda data: data["nodes"][0].update(state="1 2 3 4"))


def test_marks_that_differ_from_the_runs_are_refused(solved, edit):
    edit(solved / "results.jsonl", lambda row: row.update(correct=[not c for c in row["correct"]]))
    with pytest.raises(NotReplayed, match="otherwise"):
        broken(solved, edit, lambda data: None)


def test_solutions_for_reward_models_are_the_tasks(searched):
    run, replay, tree, _ = replayed(searched(*RUNS["choose"]))
    leaf = next(node for node in tree.nodes if node.is_right)
    question, added = replay.solution(tree, leaf)
    assert (question, *(text for texts in added for text in texts)) == run.task.solution(leaf.state)
    assert len(added) == len(leaf.path)


def test_solutions_of_other_tasks_are_their_prompts(searched):
    _, replay, tree, _ = replayed(searched(*RUNS["blocksworld"]))
    leaf = next(node for node in tree.nodes if node.is_right)
    question, added = replay.solution(tree, leaf)
    assert question == leaf.path[0].prompt
    assert added == [[node.text.strip()] for node in leaf.path]
