"""`treeshare.describe` prints every option, and what one option takes."""

import re

import pytest
from places import PACKAGE

import treeshare as ts
from treeshare.description import GROUPS, options
from treeshare.experiments.run import main

OPTIONS = {option.title: option for group in GROUPS for option in options(group)}


class Lookahead:
    """Looks ahead.

    Args:
        steps: how far
            to look.
    """

    def __init__(self, steps: int, width: int | None = None) -> None: ...


class Bare:
    pass


@pytest.fixture
def described(capsys, monkeypatch):
    """The lines that `describe` prints on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "140")

    def call(*args):
        ts.describe(*args)
        return capsys.readouterr().out.splitlines()

    return call


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_a_group_is_listed(group, described):
    lines = described()
    (head,) = [number for number, line in enumerate(lines) if line.startswith(f"{group} ")]
    end = lines.index("", head)
    names = [line.split()[0] for line in lines[head + 1 : end] if not line.startswith(" ")]
    assert names == sorted(path.stem for path in (PACKAGE / "conf" / group).glob("*.yaml"))


def test_the_installation_is_listed(described):
    text = "\n".join(described())
    assert text.startswith(f"treeshare {ts.__version__}\npython ")
    assert re.search(r"^packages +torch \d", text, re.MULTILINE)
    assert re.search(r"^devices +cpu \(", text, re.MULTILINE)
    assert re.search(r"^default .* search=tot_bfs .* model=embedded", text, re.MULTILINE)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_every_option_says_what_it_is_and_takes(option):
    assert option.purpose
    assert not [row["parameter"] for row in option.parameters() if not row["meaning"]]


def test_an_option_in_detail(described):
    lines = described("tot_bfs")
    assert lines[0] == "search=tot_bfs: treeshare.search.ToTBFS"
    assert "breadth      5        b, the states kept of each level." in lines
    assert "source      Yao et al., 2305.10601" in lines
    assert "requests    at most 1 + (depth - 1) * breadth" in lines
    assert "command     treeshare search=tot_bfs" in lines


@pytest.mark.parametrize("part", ["ToTBFS", ts.search.ToTBFS, "search=tot_bfs"], ids=str)
def test_a_class_is_described_by_its_option(part, described):
    assert described(part) == described("tot_bfs")


def test_an_option_that_changes_another(described):
    lines = described("mcts_uct")
    assert lines[0] == "search=mcts_uct: treeshare.search.MCTS"
    assert any(re.match(r"selection +uct +the score", line) for line in lines)
    assert " Here selection=uct" in OPTIONS["search=mcts_uct"].purpose
    assert "selection" not in OPTIONS["search=mcts"].purpose


def test_a_name_of_several_groups_describes_all(described):
    titles = [line for line in described("hf") if "=hf: " in line]
    assert [title.partition(":")[0] for title in titles] == [
        *("reward_model=hf", "engine=hf", "model=hf"),
    ]


def test_what_a_part_needs(described):
    assert "needs      a task with moves (HasMoves), scores of given texts" in described("choose")
    text = " ".join(" ".join(described("process_reward")).split())
    assert "reward_model=hf (with some of its parameters)" in text


def test_a_required_value_is_in_the_command(described):
    lines = described("replay")
    assert any(re.match(r"log +required ", line) for line in lines)
    assert "command  treeshare engine=replay engine.log=..." in lines


def test_a_class_of_the_users_own(described):
    lines = described(Lookahead)
    assert lines[0] == f"Lookahead: {__name__}.Lookahead"
    assert "steps      required  how far to look." in lines
    assert "width      null" in lines
    assert described(Bare) == [f"Bare: {__name__}.Bare", "", "It has no parameters."]


CALLS = {
    title: option
    for title, option in OPTIONS.items()
    if option.target.startswith("treeshare.search.") and title != "search=treequest"
}


@pytest.mark.parametrize("option", CALLS.values(), ids=CALLS)
def test_the_line_of_python_makes_the_part(option, described):
    (call,) = re.findall(r"^in Python (.*(?:\n {5,}.*)*)", "\n".join(described(option.title)), re.M)
    made = eval(" ".join(call.split()), {"treeshare": ts})
    assert type(made) is option.made_by


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("tot_bsf", "there is no 'tot_bsf': try tot_bfs, tot_dfs"),
        ("model=hff", "there is no 'model=hff': try embedded, hf, smollm2"),
        ("zzzzz", "there is no 'zzzzz': treeshare.describe() lists the options"),
    ],
)
def test_an_unknown_option_is_refused(part, said, monkeypatch, capsys):
    with pytest.raises(ValueError, match=re.escape(said)):
        ts.describe(part)
    monkeypatch.setattr("sys.argv", ["treeshare", "--describe", part])
    assert main() == 2
    assert capsys.readouterr().err.startswith(f"treeshare: {said}")


def test_the_command_prints_the_same(described, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["treeshare", "--describe", "tot_bfs", "choose"])
    assert main() == 0
    assert capsys.readouterr().out.splitlines() == [*described("tot_bfs"), *described("choose")]
