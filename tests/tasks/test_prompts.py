"""Prompts: golden digests of every one, and what a user can replace.

The embedded model was trained on the exact texts, and a change of one character changes the replies
and the figures of the documentation. After a change on purpose, write the digests that the failing
test shows into `prompt_digests.json`.
"""

import hashlib
import json
import pickle
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from code_blocks import python_blocks
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT
from task_options import FILES

from treeshare import tasks
from treeshare.tasks.prompts import REPLY, Preamble, PromptTemplates, read_prompts
from treeshare.tasks.reasoning_gym.task import Reply
from treeshare.tasks.task import Dialogue

DIGESTS = json.loads(Path(__file__).with_name("prompt_digests.json").read_text())
STEPS = ("propose", "step", "io", "cot", "value", "judge")
ARITHMETIC = (*STEPS, "choose", "vote", "reflect", "feedback", "refine")
MERGING = ("split", "solve", "merge", "improve", "step", "io", "cot")


def step(task, role, state, text):
    """Return the state after the first step of a reply."""
    steps = task.parse(role, state, text)
    assert isinstance(steps, list), steps
    return steps[0].state


def arithmetic(task):
    """Return states by role: the root, one with a step and a lesson, a terminal one, an answer."""
    root = task.root(task.problems()[0])
    middle = task.with_reflections(task.moves(root)[2].state, ["avoid large numbers"])
    final = middle
    while task.moves(final):
        final = task.moves(final)[0].state
    numbers = " + ".join(map(str, root.puzzle))
    claimed = step(task, "io", root, f"Answer: {numbers}")
    single = [root, middle, final, claimed]
    states = dict.fromkeys(ARITHMETIC, single)
    states["vote"] = [tuple(single)]
    states["feedback"] = [claimed]
    states["refine"] = [((claimed, "wrong, look\nagain"),), ((claimed, "no"), (claimed, "nor"))]
    return states


def blocksworld(task):
    root = task.root(task.problems()[0])
    middle = task.moves(root)[0].state
    claimed = step(task, "io", root, "move A onto B; move C to the table")
    return {role: [root, middle, claimed] for role in (*STEPS, "choose")}


def crosswords(task):
    root = task.root(task.problems()[0])
    middle = step(task, "step", root, "h1. scent")
    full = step(task, "io", root, "Rows: heart ember abuse resin trend")
    return {role: [root, middle, full] for role in STEPS}


def math(task):
    root = task.root(task.problems()[0])
    middle = step(task, "step", root, "First, 2 + 3 = 5.")
    claimed = step(task, "io", root, "Answer: 5")
    return {role: [root, middle, claimed] for role in STEPS[1:]}


def merging(task):
    root = task.root(task.problems()[0])
    claimed = step(task, "io", root, "[1, 2, 3]")
    states = {role: [root, claimed] for role in MERGING}
    states["merge"] = [(claimed, claimed)]
    states["improve"] = [claimed]
    return states


def reasoning_gym(task):
    asked = Reply("What is 1 + 1?\nSay it.\n")
    thinking = Reply("What is 1 + 1?", ("First,\nadd.",))
    answered = Reply(" 2 {x}", answer="4\n")
    return {
        "io": [asked, answered],
        "cot": [asked, answered],
        "step": [asked, thinking],
        "value": [answered, thinking],
        "value_reasoning": [thinking],
    }


def make_reasoning_gym(**given):
    pytest.importorskip("reasoning_gym", reason="needs the extra `reasoning-gym`")
    return tasks.ReasoningGym("chain_sum", limit=1, **given)


CASES = {
    "game24": (lambda **given: tasks.Game24(limit=1, **given), arithmetic),
    "countdown": (lambda **given: tasks.Countdown(limit=1, **given), arithmetic),
    "blocksworld": (lambda **given: tasks.Blocksworld(limit=1, **given), blocksworld),
    "crosswords": (
        lambda **given: tasks.Crosswords(f"{FILES}/crosswords.json", **given),
        crosswords,
    ),
    "math": (lambda **given: tasks.MathProblems(f"{FILES}/math.jsonl", **given), math),
    "sorting": (lambda **given: tasks.Sorting(limit=1, **given), merging),
    "set_intersection": (lambda **given: tasks.SetIntersection(limit=1, **given), merging),
    "reasoning_gym": (make_reasoning_gym, reasoning_gym),
}
EVERY = pytest.mark.parametrize("name", CASES)


def own_roles(name):
    """Return the roles with a prompt of their own: a `step` of sorting is `solve` or `improve`."""
    return set(DIGESTS[name]) - ({"step"} if "split" in DIGESTS[name] else set())


@cache
def own_task(name):
    """Return a task as it is without arguments; that of reasoning_gym is slow to start."""
    return CASES[name][0]()


def all_prompts(name, task):
    """Return, for each role of a task, its prompts for some states."""
    return {
        role: [task.prompt(role, state) for state in states]
        for role, states in CASES[name][1](task).items()
    }


@EVERY
def test_prompts_are_what_they_were(name):
    digests = {
        role: hashlib.sha256(json.dumps(prompts).encode()).hexdigest()[:16]
        for role, prompts in all_prompts(name, own_task(name)).items()
    }
    assert digests == DIGESTS[name]


@EVERY
def test_the_digests_hold_every_role(name):
    task = own_task(name)
    with pytest.raises(ValueError, match="role='none' must be one of ") as error:
        task.prompt("none", task.root(task.problems()[0]))
    roles = str(error.value).partition(" must be one of ")[2].split(", ")
    assert set(roles) == set(DIGESTS[name])


@EVERY
def test_a_prompt_replaced_by_its_own_text_stays(name, tmp_path):
    """The text shows all placeholders, so a user can begin with it."""
    task = own_task(name)
    files = {role: tmp_path / f"{role}.txt" for role in own_roles(name)}
    for role, file in files.items():
        file.write_text(task.templates.text(role) + "\n")
    changed = CASES[name][0](prompts=files)
    assert changed.templates.replaced.keys() == own_roles(name)
    replaced = all_prompts(name, changed)
    for role, prompts in all_prompts(name, task).items():
        assert ["".join(p) for p in replaced[role]] == ["".join(p) for p in prompts]
        assert all(all(prompt) for prompt in replaced[role])  # no empty segment


@pytest.mark.parametrize("name", [name for name in CASES if name != "reasoning_gym"])
def test_shots_are_the_first_examples(name):
    task, make = own_task(name), CASES[name][0]
    own = all_prompts(name, task)
    most = {role: len(task.templates.examples(role)) for role in own_roles(name)}
    assert all(most.values())
    for role, number in most.items():
        for shots in range(number + 1):
            changed = all_prompts(name, make(shots={role: shots}))
            for prompt, (first, *rest) in zip(changed[role], own[role], strict=True):
                instruction, *examples = first.removesuffix("\n\n").split("\n\n")
                assert prompt == ("\n\n".join([instruction, *examples[:shots], ""]), *rest)
            others = own_roles(name) - {role}
            assert all(changed[other] == own[other] for other in others)
    for prompts in all_prompts(name, make(shots=0)).values():
        assert {prompt[0].count("\n\n") for prompt in prompts} == {1}


def test_a_replaced_prompt_is_the_text_around_what_the_state_gives(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text(
        "\ufeffGive \\boxed{{answer}} or \\frac{1}{2} for {question}\n\n{examples}{steps}Next:\n\n"
    )
    task = tasks.MathProblems(
        f"{FILES}/math.jsonl", prompts={"step": file, "cot": None}, shots={"step": 1}
    )
    root = task.root(task.problems()[1])
    state = step(task, "step", root, "First, 3 + 1 = 4.")
    (example,) = task.templates.examples("step")
    question = "What is $\\frac{3}{8} + \\frac{1}{8}$?"
    assert "".join(task.prompt("step", state)) == (
        f"Give \\boxed{{answer}} or \\frac{{1}}{{2}} for {question}\n\n{example}\n\n"
        "First, 3 + 1 = 4.\nNext:\n"
    )
    assert task.prompt("step", state)[0] == "Give \\boxed{answer} or \\frac{1}{2} for "
    assert task.prompt("cot", root) == tasks.MathProblems(f"{FILES}/math.jsonl").prompt("cot", root)
    again = pickle.loads(pickle.dumps(task))
    assert again.prompt("step", state) == task.prompt("step", state)


def without_blanks(text):
    return "".join(text.split())


@EVERY
def test_a_prompt_in_turns_has_the_same_words(name):
    task = own_task(name)
    for role, prompts in all_prompts(name, task).items():
        for prompt in prompts:
            assert isinstance(prompt, Dialogue)
            roles, texts = zip(*prompt.turns, strict=True)
            assert roles == ("user", "assistant") * len(prompt.examples) + ("user",)
            assert all(texts) and not any(text[-1].isspace() for text in texts)
            said = without_blanks("".join([*texts, *prompt.reply]))
            assert said == without_blanks("".join(prompt)), role
            assert prompt.reply and not prompt.reply[-1].endswith(" ")


@EVERY
def test_the_reply_of_an_example_begins_as_the_models(name):
    """So that the model sees in the turns how it is to go on."""
    task = own_task(name)
    for role in own_roles(name):
        (prompt, *_) = all_prompts(name, task)[role]
        assert len(prompt.examples) == len(task.templates.examples(role))
        begin = prompt.reply[0].rstrip("\n").partition("Makes ")[0]
        assert all(reply.startswith(begin) for _, reply in prompt.examples), role
        assert all(question.endswith("\n") for question, _ in prompt.examples)


@pytest.mark.parametrize("name", ["game24", "countdown", "blocksworld", "crosswords", "math"])
def test_the_reply_of_a_child_begins_with_its_parents(name):
    task, states = own_task(name), [own_task(name).root(own_task(name).problems()[0])]
    texts = {
        "crosswords": ["h1. scent", "h2. canoe"],
        "math": ["First, 1.", "Then, 2.", "Answer: 3"],
    }
    for i in range(3):
        last = states[-1]
        given = task.parse("step", last, texts[name][i]) if name in texts and i < 2 else None
        steps = given or (task.moves(last) if hasattr(task, "moves") else [])
        states += [step.state for step in steps[:1]]
    assert len(states) > 2
    for role in {"step", "cot", "choose"} & own_roles(name):
        prompts = [task.prompt(role, state) for state in states]
        for parent, child in pairwise(prompts):
            assert child.turns == parent.turns
            assert child.reply[: len(parent.reply)] == parent.reply
            assert len(child.reply) > len(parent.reply)


def test_a_prompt_of_ones_own_can_be_asked_in_turns():
    prompt = Dialogue(
        "Double the number.\n\n", [("Number: 1\n", "Is: 2"), ("Number: 2\n", "Is: 4")],
        ["Number: 7\n"], cue="Is:",
    )  # fmt: skip
    assert prompt == (
        "Double the number.\n\nNumber: 1\nIs: 2\n\nNumber: 2\nIs: 4\n\n",
        "Number: 7\n",
        "Is:",
    )
    assert prompt.turns == (
        ("user", "Double the number.\n\nNumber: 1"),
        ("assistant", "Is: 2"),
        ("user", "Number: 2"),
        ("assistant", "Is: 4"),
        ("user", "Number: 7"),
    )
    assert prompt.reply == ("Is:",)
    assert Dialogue("Say it.\n\n", question="Hi").turns == (("user", "Say it.\n\nHi"),)
    again = pickle.loads(pickle.dumps(prompt))
    assert (again, again.turns, again.reply) == (prompt, prompt.turns, prompt.reply)


def test_the_example_of_the_chat_page_is_a_dialogue():
    (code,) = python_blocks((ROOT / "docs" / "chat.md").read_text())
    names = {}
    exec(code, names)
    prompt = names["prompt"]("step", SimpleNamespace(target=9, path=(1, 2)))
    assert len(prompt.turns) == 5 and prompt.turns[-1] == ("user", "Target: 9")
    assert prompt.reply == ("Steps:", " 1", " 2")


@pytest.mark.parametrize(
    ("steps", "cue", "reply"),
    [
        ((), "Step:", ("Step:",)),
        (("Step: a\n", "Step: b\n"), "Step:", ("Step:", " a\nStep:", " b\nStep:")),
        (("Solution:\n", "a\n"), "", ("Solution:\n", "a\n")),
        (("Steps:\n", "- a\n"), "-", ("Steps:\n-", " a\n-")),
        (" 1 2", "", (" 1 2",)),
        ((), "", ()),
    ],
)
def test_a_reply_is_divided_where_those_of_the_parents_ended(steps, cue, reply):
    prompt = Dialogue(question="Q", steps=steps, cue=cue)
    assert prompt.reply == reply
    assert "".join(prompt) == "Q" + "".join(reply)


EXAMPLES = Preamble("Do it.", ("Q: 1\nA: 2", "Q: 2\nA: 4"))


@pytest.mark.parametrize(
    ("text", "turns", "reply"),
    [
        ("{examples}Q: {q}\n{reply}{steps}A:", 5, ("1\n", "A:")),
        ("{examples}Q: {q}\n{steps}A:", 5, ("1\n", "A:")),  # it begins with the task's own
        ("{q}{reply}: {steps}A:", 1, (": ", "1\n", "A:")),
        ("{steps}{examples}Q: {q}", 1, ("1\n", "Q: 1\nA: 2\n\nQ: 2\nA: 4\n\nQ: 3")),
        ("{q}\n{examples}{steps}A:", 1, ("1\n", "A:")),  # examples after the question
        ("{reply}{q}{examples}{steps}", 1, None),
    ],
)
def test_a_replaced_prompt_says_where_its_reply_begins(text, turns, reply):
    layout = ("io", "Q: {q}\n", REPLY, "{steps}", "A:")
    templates = PromptTemplates({"io": EXAMPLES}, {"io": layout})
    prompt = templates.customized({"io": text}, None).render("io", {"q": "3", "steps": ["1\n"]})
    assert "".join(prompt) == text.replace("{reply}", "").replace("{q}", "3").replace(
        "{steps}", "1\n"
    ).replace("{examples}", "Q: 1\nA: 2\n\nQ: 2\nA: 4\n\n")
    assert len(prompt.turns) == turns
    if reply is not None:
        assert (*prompt.steps, prompt.cue) == reply


def test_a_layout_without_a_reply_is_one_turn():
    prompt = PromptTemplates({"io": EXAMPLES}, {"io": ("io", "Q: {q}\n")}).render("io", {"q": "3"})
    ((role, text),) = prompt.turns
    assert (role, text, prompt.reply) == ("user", "".join(prompt).rstrip(), ())


def test_an_example_without_a_reply_is_refused():
    with pytest.raises(
        ValueError, match=r"^no line after the first of 'Q: 1\\nB: 2' begins with 'A:'"
    ):
        PromptTemplates(
            {"io": Preamble("Do it.", ("Q: 1\nB: 2",))}, {"io": ("io", "Q: {q}\n", REPLY, "A:")}
        )


PIECES = {  # of a prompt, and what each becomes
    "{question}": "Why?",
    "{steps}": "one\ntwo\n",
    "{{steps}}": "{steps}",
    r"\frac{1}{2}": r"\frac{1}{2}",
    "100% or %s": "100% or %s",
    "{}": "{}",
    "\n": "\n",
}


@given(st.lists(st.sampled_from(list(PIECES))))
def test_a_prompt_is_its_pieces_in_their_order(pieces):
    pieces = [*pieces, "{question}", "{steps}"]
    own = tasks.MathProblems.templates
    templates = own.customized({"step": "".join(pieces)}, None)
    values = {"question": "Why?", "steps": ["one\n", "two\n"]}
    assert "".join(templates.render("step", values)) == "".join(PIECES[piece] for piece in pieces)
    assert templates.render("cot", values) == own.render("cot", values)
    assert templates.customized({"step": templates.text("step")}, 0).render("step", values) == (
        templates.render("step", values)
    )


def test_a_text_is_a_prompt_in_place_of_a_file():
    task = tasks.Game24(limit=1, prompts={"io": "Make 24 of {numbers}:"})
    assert task.prompt("io", task.root(task.problems()[0])) == ("Make 24 of ", "1 5 5 5", ":")
    assert tasks.Game24(limit=1).templates.replaced == {} == tasks.Game24.templates.replaced


RULE = "it needs {question}, {steps}, and may have {examples}, {reply}"


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (
            {"steps": "{question}"},
            "prompts: role 'steps' must be one of step, io, cot, value, judge",
        ),
        (
            {"io": "Solve it.\n"},
            "prompts.io: the text lacks {question}: it needs {question}, and may have {examples}, "
            "{reply}",
        ),
        ({"step": "{question}"}, f"prompts.step: the text lacks {{steps}}: {RULE}"),
        (
            {"step": "{qestion}{steps}"},
            f"prompts.step: the text has an unknown placeholder {{qestion}}: {RULE}; "
            "as a text, that is written {{qestion}}",
        ),
        (
            {"step": "n.txt"},
            f"prompts.step: 'n.txt': No such file or directory; if it is the prompt itself, {RULE}",
        ),
        (
            {"step": ""},
            f"prompts.step: '': Is a directory; if it is the prompt itself, {RULE}",
        ),
        ({"step": 5}, "prompts.step=5 must be a file or a text"),
        ({"step": Path("bad.txt")}, "prompts.step: bad.txt: not a file in UTF-8: 'utf-8' codec .*"),
        ({"step": Path("{a}.txt")}, f"prompts.step: {{a}}.txt lacks {{steps}}: {RULE}"),
    ],
)
def test_a_bad_prompt_is_refused(prompts, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.txt").write_bytes(b"{question}{steps}\xff")
    Path("{a}.txt").write_text("{question}")
    with pytest.raises((OSError, TypeError, ValueError)) as error:
        tasks.MathProblems(f"{FILES}/math.jsonl", prompts=prompts)
    assert str(error.value) == message or message.endswith(".*")
    assert str(error.value).startswith(message.removesuffix(".*"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"shots": 4},
            "shots=4 must be at most 3; by role, at most shots="
            "{step: 3, io: 3, cot: 3, value: 4, judge: 4}",
        ),
        ({"shots": -1}, "shots=-1 must be at least 0"),
        ({"shots": 2.5}, "shots=2.5 must be a whole number"),
        ({"shots": True}, "shots=True must be a whole number"),
        ({"shots": {"value": 5}}, "shots.value=5 must be at most 4"),
        ({"shots": {"io": -2}}, "shots.io=-2 must be at least 0"),
        ({"shots": {"steps": 1}}, "shots: role 'steps' must be one of step, io, cot, value, judge"),
        ({"shots": {"io": 1}, "prompts": {"io": "{question}"}}, "shots.io=1 must be at most 0"),
        (
            {
                "shots": 4,
                "prompts": {"io": "{question}", "cot": "{question}{steps}{examples}"},
            },
            "shots=4 must be at most 3; by role, at most shots="
            "{step: 3, cot: 3, value: 4, judge: 4}",
        ),
    ],
)
def test_a_number_of_examples_out_of_bound_is_refused(given, message):
    with pytest.raises(ValueError) as error:
        tasks.MathProblems(f"{FILES}/math.jsonl", **given)
    assert str(error.value) == message


def test_a_task_without_examples_has_no_shots():
    templates = PromptTemplates(read_prompts("treeshare.tasks.reasoning_gym"), {"io": ("solve",)})
    assert templates.customized(None, 0).preamble("io") == templates.preamble("io")
    with pytest.raises(ValueError, match=r"^shots=1 must be at most 0$"):
        templates.customized(None, 1)
    with pytest.raises(ValueError, match=r"unknown placeholder \{examples\}"):
        templates.customized({"io": "{examples}"}, None)
