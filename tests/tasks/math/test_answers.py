"""The reader of final answers against the reference set, golds, units, bounds and groups."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import answer_table
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import DATA

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search import Context, Sample, Scheduler, SelfConsistency, ValuePrompt
from treeshare.tasks.math.answers import are_same, final_answer, group_keys, normalize_answer
from treeshare.tasks.math.numbers import Number, TooLarge, calculate, read_number
from treeshare.tasks.math.problems import MathProblems, MathVerifier
from treeshare.tasks.math.structure import read_answer
from treeshare.tasks.math.units import are_compatible
from treeshare.tasks.task import HasEqualAnswers, Problem

ROWS = answer_table.read_set()
ALGEBRA = "algebra (symbolic)"
# The lines that the reader gets wrong: `1234,5` could be a list, and `5!` a cry
KNOWN_REFUSALS = {
    ("Answer: 1234,5", "1234.5"),
    ("\\boxed{2.5\\mathrm{e}3}", "2500"),
}
KNOWN_SYMBOLIC = {
    *KNOWN_REFUSALS,
    ("Answer: i^2", "-1"),  # math-verify takes i for a variable
    ("Answer: 5!", "120"),
}


def shown(rows):
    return {(row["reply"], row["gold"]) for row in rows}


def test_the_set_has_enough_of_both():
    assert len(ROWS) >= 400 and sum(not row["same"] for row in ROWS) >= 150
    for kind in {row["kind"] for row in ROWS}:
        both = {row["same"] for row in ROWS if row["kind"] == kind}
        assert both == {True, False} or kind == "no answer"


def test_the_set_is_judged_rightly():
    assert not shown(
        row for row in answer_table.mistakes(answer_table.ours, ROWS) if not row["same"]
    )
    rows = [row for row in ROWS if row["kind"] != ALGEBRA]
    assert shown(answer_table.mistakes(answer_table.ours, rows)) == KNOWN_REFUSALS


def test_the_set_is_judged_rightly_with_symbols():
    pytest.importorskip("math_verify", reason="needs the extra `math`")
    wrong = answer_table.mistakes(answer_table.JUDGES["treeshare, symbolic"], ROWS)
    assert shown(wrong) == KNOWN_SYMBOLIC


@pytest.mark.parametrize("name", ["harness, strict-match", "harness, flexible-extract"])
def test_the_harness_makes_more_mistakes(name):
    assert len(answer_table.mistakes(answer_table.JUDGES[name], ROWS)) > 100


@pytest.mark.parametrize("symbolic", [False, True])
def test_an_answer_is_the_same_whichever_side_it_stands_on(symbolic):
    if symbolic:
        pytest.importorskip("math_verify", reason="needs the extra `math`")
    for row in ROWS[:: 8 if symbolic else 1]:
        answer = final_answer(row["reply"])
        if answer is not None:
            there = are_same(normalize_answer(answer), row["gold"], symbolic=symbolic)
            assert are_same(normalize_answer(row["gold"]), answer, symbolic=symbolic) == there, row


def data(name):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not there; TREESHARE_DATA names the folder of gsm8k and math500")
    return str(path)


@pytest.mark.parametrize(
    ("name", "question", "answer"),
    [
        ("gsm8k/test.jsonl", "question", "answer"),
        ("math500/test500.jsonl", "problem", "answer"),
        ("math500/test500.jsonl", "problem", "solution"),
        ("math500/test_aime.jsonl", "problem", "extracted_groundtruth"),
        ("math500/test_amc.jsonl", "problem", "extracted_groundtruth"),
    ],
)
def test_golds_are_readable_and_numbers_differ(name, question, answer):
    path = data(name)
    verifier = MathVerifier(path, answer=answer)
    golds = [
        verifier.right_answer(problem)
        for problem in MathProblems(path, question=question).problems()
    ]
    values: dict[Fraction, str] = {}
    for gold in golds:
        normal = normalize_answer(gold)
        assert are_same(normal, gold) and normalize_answer(normal) == normal
        if isinstance(number := read_answer(gold), Number):
            values.setdefault(number.value, gold)
    if "gsm8k" in name:
        assert {normalize_answer(gold) for gold in golds} == {str(value) for value in values}
    for (a, first), (b, second) in combinations(values.items(), 2):
        assert a != b and not are_same(first, second)


def test_golds_of_math_agree_with_its_solutions():
    path = data("math500/test500.jsonl")
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for row in rows:
        found = final_answer(row["solution"])
        assert found is not None and are_same(normalize_answer(found), row["answer"]), row["answer"]


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ('""', ":2: the field 'answer' is empty"),
        ('" "', ":2: the field 'answer' is empty"),
        ("true", ":2: no text or number in a field 'answer'"),
        ("null", ":2: no text or number in a field 'answer'"),
        ("[5]", ":2: no text or number in a field 'answer'"),
        ("NaN", ":2: not JSON: NaN is no number"),
        ("-Infinity", ":2: not JSON: -Infinity is no number"),
        (f'"{"9" * 201}"', ":2: no answer of at most 200 characters in .*"),
        (f'"{"step " * 200}"', ":2: no answer of at most 200 characters in .*"),
    ],
)
def test_a_gold_that_no_reply_can_meet_is_refused(tmp_path, gold, message):
    path = tmp_path / "golds.jsonl"
    path.write_text(f'{{"answer": 1}}\n{{"answer": {gold}}}\n')
    with pytest.raises(ValueError, match=f"^{path}{message}$"):
        MathVerifier(str(path))


@pytest.mark.parametrize(
    ("gold", "answer"),
    [("1e-07", "0.0000001"), ("27.0", "27"), ("12345678901234567890123", "12345678901234567890123"),
     ("0.1000000000000000000001", "0.1000000000000000000001")],
)  # fmt: skip
def test_a_number_of_json_keeps_its_value(tmp_path, gold, answer):
    path = tmp_path / "golds.jsonl"
    path.write_text(f'{{"answer": {gold}}}\n')
    verifier = MathVerifier(str(path))
    assert verifier.check(Problem("math/0", ""), answer)
    assert not verifier.check(Problem("math/0", ""), f"{answer}1")


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("USD", "dollars", True), ("cm", "m", False), ("m/s", "meters per second", True),
        ("°C", "degrees Celsius", True), ("°C", "°", False), ("pounds", "lb", True),
        ("pounds", "GBP", True), ("lb", "GBP", False),
        ("", "cm", True), ("red apples", "apple", True),
        ("apples", "pears", False), ("cm", "apples", False), ("clips in total", "clips", True),
        ("in", "inches", True), ("square inches", "in^2", True), ("hrs", "min", False),
    ],
)  # fmt: skip
def test_units_are_compared_by_meaning(a, b, expected):
    assert are_compatible(a, b) is expected and are_compatible(b, a) is expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2^{10} - 1", 1023), ("3!", 6), (r"\frac{1}{2} + 1", Fraction(3, 2)), ("-2^2", -4),
        (r"2 \times (3 + 4)", 14), ("1/2/3", Fraction(1, 6)), ("2^{-1}", Fraction(1, 2)),
        ("x", None), ("1/0", None), ("2 3", None), ("(1", None), ("--1", None), ("(-1)!", None),
    ],
)  # fmt: skip
def test_sums_are_worked_out_exactly(text, value):
    assert calculate(text) == value


@pytest.mark.parametrize("text", ["9^{9^{9^{9}}}", "1000000!", "2^{100000}", "(10^{5})!", "1e9999"])
def test_no_large_power_is_computed(text):
    with pytest.raises(TooLarge):
        calculate(text)
    for symbolic in (False, True):
        assert not are_same(text, "5", symbolic=symbolic)


def test_equal_answers_have_one_key():
    def groups(*answers):
        keys = group_keys(answers)
        assert [keys.index(key) for key in keys] == [
            group_keys(answers[::-1])[::-1].index(key) for key in group_keys(answers[::-1])[::-1]
        ]
        return [keys.index(key) for key in keys]

    assert groups("18", "18 USD", "18 dollars", "$18", "20", "20") == [0, 0, 0, 0, 4, 4]
    assert groups("0.5", "1/2", r"\frac{1}{2}", "2", "50%") == [0, 0, 0, 3, 4]
    assert groups("5", "5 cm", "5 m", "5 meters") == [0, 1, 2, 2]  # which 5 is, nobody knows
    assert groups("5", "5 cm", "5 centimeters") == [0, 0, 0]
    assert groups("1, 2", r"\{2, 1\}", "(1, 2)") == [0, 0, 2]
    assert groups("x = 3", "3", "x > 3", "3 < x") == [0, 0, 2, 2]
    assert groups("east", "East", "west") == [0, 0, 2]
    assert groups("1e5000, 2e5000", "2e5000, 1e5000", "1e5000, 3e5000") == [0, 0, 2]
    assert group_keys([]) == []


def test_the_task_says_which_answers_are_equal():
    path = str(Path(answer_table.__file__).parent / "task_files/math.jsonl")
    task = MathProblems(path)
    assert isinstance(task, HasEqualAnswers)
    assert len(set(task.answer_keys(["18", "18 USD", "18 dollars"]))) == 1


@given(
    st.lists(
        st.sampled_from(["5", "5 cm", "5 m", "$5", "5 apples", "1/2", "0.5", "x", "1, 2"]),
        max_size=9,
    )
)
def test_groups_do_not_depend_on_the_order(answers):
    keys = dict(zip(answers, group_keys(answers), strict=True))
    turned = dict(zip(answers[::-1], group_keys(answers[::-1]), strict=True))
    for a, b in combinations(keys, 2):
        assert (keys[a] == keys[b]) == (turned[a] == turned[b])


@given(st.fractions(max_denominator=10**6), st.integers(-40, 40))
def test_scientific_notation_is_exact(value, exponent):
    text = rf"\frac{{{value.numerator}}}{{{value.denominator}}} \times 10^{{{exponent}}}"
    number = read_number(text)
    assert number is not None and number.value == value * Fraction(10) ** exponent
    assert read_number(str(number)) == number


@pytest.mark.parametrize("separator", [",", "'", " ", r"\,", "{,}", r",\!", "\u202f"])
@given(st.integers(1000, 10**12))
def test_separators_of_thousands_do_not_matter(separator, value):
    text = f"{value:,}".replace(",", separator)
    assert are_same(text, str(value)) and not are_same(text, str(value + 1))


def test_huge_replies_are_read():
    """With time that grows as the square of the length, this test would not end."""
    size = 200_000
    for part in (
        r"\boxed{",
        "{",
        r"\boxed{1} and ",
        "Answer: ",
        "#### 5\n",
        "answer_",
        "Question: ",
    ):
        text = part * (size // len(part))
        assert final_answer(text) in (None, "1", "5")
        assert final_answer(f"Answer: 5\n{text}") in (None, "1", "5")
    for text in ("(" * 400, "{" * 400, "1," * 200, r"\frac{" * 60, "=1" * 200, "a or " * 80):
        assert normalize_answer(normalize_answer(text)) == normalize_answer(text)
        assert not are_same(text, "5")
    assert final_answer(f"Answer: {'9' * size}") is None and not are_same("9" * size, "9" * size)


def test_a_chain_of_thought_may_have_blank_lines():
    path = str(Path(answer_table.__file__).parent / "task_files/math.jsonl")
    task = MathProblems(path)
    root = task.root(task.problems()[0])
    assert all(stop.strip() for role in ("cot", "io") for stop in task.sampling[role]["stop"])
    for text in (
        "\n\n3 * 6 = 18\nAnswer: 18",
        "Six each.\n\nThree are 18.\n\nAnswer: 18\n\nQuestion: 2?\nAnswer: 2",
    ):
        (step,) = task.parse("cot", root, text)
        assert task.answer(step.state) == "18" and step.state.lines[-1] == "Answer: 18"


def test_the_majority_is_of_values():
    path = str(Path(answer_table.__file__).parent / "task_files/math.jsonl")
    task = MathProblems(path)
    replies = ["Answer: 20", "Answer: 18", "Answer: 18 USD", "Answer: 20", r"\boxed{\$18}"]
    context = Context(task, task.problems()[0], Sample(), ValuePrompt())
    engine = MockEngine(lambda prompt, seed, k: replies[k])
    (outcome,) = Scheduler(engine).run([(SelfConsistency(len(replies)), context)])
    assert [task.answer(node.state) for node in outcome.ranked] == ["18", "20"]
