"""The lines of each format, compared with the trees that they are made of."""

import json
from itertools import pairwise, permutations

import pytest

from treeshare.experiments.export.exported_runs import Counts, lines_of_run, read_run
from treeshare.experiments.export.lines import LineOptions

ORACLE = ["evaluator=oracle", "task.limit=2"]
COUNTDOWN = ["task=countdown", "task.numbers=4", *ORACLE]
RECORDED = ["task=game24", "search=cot_sc", "search.num_samples=6", "record=true", "task.limit=2"]
RECORDED += ["engine.replies=['Answer: 5 * (5 - 1 / 5)', 'so\nAnswer: 5 * (5 - 1 / 5) = 24', 'no']"]


def trees_of(directory):
    """The saved trees by puzzle; each node has its parent, its children and the ids below it."""
    trees = {}
    for path in (directory / "trees").iterdir():
        data = json.loads(path.read_text())
        nodes = {node["id"]: node | {"children": [], "below": []} for node in data["nodes"]}
        for edge in data["edges"]:
            nodes[edge["source"]]["children"].append(edge["target"])
            nodes[edge["target"]]["parent"] = edge["source"]
        for number in nodes:
            at = number
            while True:
                nodes[at]["below"].append(number)
                if "parent" not in nodes[at]:
                    break
                at = nodes[at]["parent"]
        trees[data["graph"]["problem"]] = nodes
    return trees


def exported(directory, **options):
    run = read_run(directory, trust=False, allow_test=True)
    counts = Counts()
    return run.task, list(lines_of_run(run, LineOptions(**options), counts)), counts


def test_solved_paths_are_the_distinct_right_ones_of_the_ranking_first(searched):
    directory = searched(*COUNTDOWN)
    run, lines, counts = exported(directory, format="sft", style="text")
    rows = [json.loads(line) for line in (directory / "results.jsonl").read_text().splitlines()]
    assert any(row["correct_top1"] for row in rows)
    trees = trees_of(directory)
    for row in rows:
        own = [line for line in lines if line["problem"] == row["problem"]]
        assert len({line["completion"] for line in own}) == len(own)
        if row["correct_top1"]:
            target = row["problem"].rpartition("=")[2]
            assert own[0]["completion"].endswith(f"Answer: {row['answers'][0]} = {target}")
        problem = run.problems[row["problem"]]
        for line in own:
            assert line["prompt"] == "".join(run.task.prompt("step", run.task.root(problem)))
            path = [0, *line["nodes"]]
            nodes = trees[row["problem"]]
            assert all(nodes[b]["parent"] == a for a, b in pairwise(path))
    assert counts.lines == len(lines)
    assert counts.puzzles == len({line["problem"] for line in lines})


def test_lines_name_their_run(searched):
    directory = searched(*COUNTDOWN)
    for style in ("chat", "text"):
        for line in exported(directory, format="sft", style=style)[1]:
            assert line["run"] == directory.name
            named = [line[name] for name in ("task", "policy", "model", "seed")]
            assert named == ["countdown", "ToTBFS", "MockEngine", 0]


def test_chat_is_the_text_in_two_turns(searched):
    directory = searched(*COUNTDOWN)
    _, texts, _ = exported(directory, format="sft", style="text")
    _, chats, _ = exported(directory, format="sft", style="chat")
    assert len(texts) == len(chats) > 1
    for text, chat in zip(texts, chats, strict=True):
        user, assistant = chat["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert "".join((text["prompt"] + text["completion"]).split()) == "".join(
            (user["content"] + assistant["content"]).split()
        )
        assert assistant["content"].startswith("Step: ")
        assert not user["content"].endswith("Step:")


def test_recorded_solutions_are_exported_as_they_were_written(searched):
    _, lines, counts = exported(searched(*RECORDED), format="sft", style="text")
    right = {"Answer: 5 * (5 - 1 / 5)", "so\nAnswer: 5 * (5 - 1 / 5) = 24"}
    assert {line["completion"] for line in lines} == right  # of 1 5 5 5 alone
    assert {line["problem"] for line in lines} == {"game24/1-5-5-5"}
    assert dict(counts.skipped) == {"no right answer": 1}


def test_most_lines_of_a_puzzle(searched):
    directory = searched(*COUNTDOWN)
    _, every, _ = exported(directory, format="sft")
    _, best, _ = exported(directory, format="sft", most=1)
    assert len(best) == len({line["problem"] for line in every}) < len(every)
    assert all(line in every for line in best)
    _, few, _ = exported(directory, format="steps", most=3)
    assert len(few) == 6


def share_of(nodes, number):
    """Of the oracle's values, which are 1 for right terminal nodes and 0 for wrong ones."""
    ends = [i for i in nodes[number]["below"] if nodes[i]["is_terminal"]]
    return sum(nodes[i]["value"] for i in ends) / len(ends) if ends else None


@pytest.mark.parametrize("kind", ["search", "solved"])
@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_preferences_are_all_pairs_of_siblings_with_the_margin(kind, margin, searched):
    directory = searched(*COUNTDOWN)
    run, lines, _ = exported(directory, format="preferences", value=kind, margin=margin)
    expected = set()
    for problem, nodes in trees_of(directory).items():
        values = {i: share_of(nodes, i) if kind == "solved" else nodes[i]["value"] for i in nodes}
        for node in nodes.values():
            known = [child for child in node["children"] if values[child] is not None]
            for high, low in permutations(known, 2):
                if values[high] > values[low] and values[high] - values[low] >= margin:
                    expected.add((problem, node["id"], high, low, values[high], values[low]))
    names = ("problem", "node", "chosen_node", "rejected_node", "chosen_value", "rejected_value")
    assert len(lines) == len(expected) > 5
    assert {tuple(line[name] for name in names) for line in lines} == expected
    for line in lines:
        assert line["margin"] == line["chosen_value"] - line["rejected_value"] >= margin
        assert line["chosen"] != line["rejected"]
    for line in lines:
        if line["node"] == 0:
            state = run.task.root(run.problems[line["problem"]])
            assert line["prompt"] == "".join(run.task.prompt("step", state))


def test_pairs_of_a_node_are_those_of_the_largest_margins(searched):
    directory = searched(*COUNTDOWN)
    _, every, _ = exported(directory, format="preferences")
    _, few, _ = exported(directory, format="preferences", most=2)
    for line in few:
        same = [o for o in every if (o["problem"], o["node"]) == (line["problem"], line["node"])]
        margins = sorted((one["margin"] for one in same), reverse=True)
        kept = [o for o in few if (o["problem"], o["node"]) == (line["problem"], line["node"])]
        assert [one["margin"] for one in kept] == margins[:2]


def test_steps_have_the_shares_of_right_answers_below_them(searched):
    directory = searched(*COUNTDOWN)
    run, lines, counts = exported(directory, format="steps")
    trees = trees_of(directory)
    ends = [
        (problem, number)
        for problem, nodes in sorted(trees.items())
        for number, node in nodes.items()
        if node["is_terminal"]
    ]
    assert sorted((line["problem"], line["nodes"][-1]) for line in lines) == sorted(ends)
    for line in lines:
        nodes = trees[line["problem"]]
        assert line["values"] == [share_of(nodes, number) for number in line["nodes"]]
        assert line["labels"] == [value > 0 for value in line["values"]]
        assert line["num_terminal"] == [
            sum(nodes[i]["is_terminal"] for i in nodes[number]["below"]) for number in line["nodes"]
        ]
        root = run.task.root(run.problems[line["problem"]])
        assert line["prompt"] == run.task.solution(root)[0]
        assert [text[:7] for text in line["completions"]] == [
            *("Step 1:", "Step 2:", "Step 3:", "Answer:")
        ]
    assert {True, False} == {label for line in lines for label in line["labels"]}
    assert counts.steps == sum(len(line["labels"]) for line in lines)


def test_solutions_drawn_as_a_whole_have_no_steps(searched):
    _, lines, counts = exported(searched(*RECORDED), format="steps")
    assert not lines
    assert dict(counts.skipped) == {"its solutions were drawn as a whole": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most": 0}, "most=0 must be at least 1"),
        ({"margin": -0.1}, "margin=-0.1 must be at least 0"),
        ({"margin": float("nan")}, "margin=nan must be at least 0"),
    ],
)
def test_numbers_out_of_their_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LineOptions("sft", **options)
