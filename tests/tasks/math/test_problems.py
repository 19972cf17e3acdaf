"""Mathematics problems: exact comparison of answers, replies, files."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import pytest
import task_options
from hypothesis import example, given
from hypothesis import strategies as st

from treeshare.tasks.math.answers import are_same, final_answer, normalize_answer, read_number
from treeshare.tasks.math.problems import MathProblems, MathVerifier
from treeshare.tasks.task import HasJudgement, HasSolution, HasValues, ParseFailure, Task
from treeshare.tasks.verifiers import verifier_of

PATH = str(Path(task_options.__file__).parent / "task_files/math.jsonl")
TASK = MathProblems(PATH)
VERIFIER = MathVerifier(PATH)
PROBLEMS = TASK.problems()
ROOT = TASK.root(PROBLEMS[0])


def test_is_a_task_that_keeps_no_answers():
    for protocol in (Task, HasValues, HasJudgement, HasSolution):
        assert isinstance(TASK, protocol)
    kept = re.sub(r" at 0x[0-9a-f]+", "", repr(vars(TASK)))
    assert "19" not in kept


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"),
        ("-18", "-18"),
        ("− 18", "-18"),
        ("+18.", "18"),
        ("1,200", "1200"),
        ("12,345,678.50", "24691357/2"),
        ("0.5", "1/2"),
        (".5", "1/2"),
        ("3/4", "3/4"),
        ("6 / 8", "3/4"),
        ("3 1/2", "7/2"),
        ("-3 1/2", "-7/2"),
        (r"\frac{3}{4}", "3/4"),
        (r"-\dfrac{6}{8}", "-3/4"),
        (r"\tfrac{-3}{4}", "-3/4"),
        (r"\frac12", "1/2"),
        (r"\frac{1}2", "1/2"),
        (r"3\frac{1}{2}", "7/2"),
        (r"\frac{0.5}{2}", "1/4"),
        ("$18.00", "18 dollars"),
        (r"\$1,200", "1200 dollars"),
        ("18 dollars", "18 dollars"),
        ("$18$", "18"),
        (r"$\frac{3}{4}$", "3/4"),
        (r"10\,000", "10000"),
        ("10{,}000", "10000"),
        ("**5**", "5"),
        ("50%", "50 %"),
        (r"50\%", "50 %"),
        ("50 percent", "50 %"),
        ("5 cm", "5 cm"),
        (r"5\text{ cm}^2", "5 cm^2"),
        (r"90^\circ", "90 °"),
        ("90^{\\circ}", "90 °"),
        ("60 miles per hour", "60 miles per hour"),
        ("9.8 m/s^2", "49/5 m/s^2"),
        ("5 L", "5 L"),
        ("21 °C", "21 °C"),
        ("12 1/2 inches", "25/2 inches"),
    ],
)
def test_a_number_is_read_exactly(text, number):
    assert str(read_number(text)) == number == normalize_answer(text)
    assert are_same(text, number) and are_same(number, text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "5 or 6", "5, 6", "3 dozen", "two", "2x", "1/0", r"\frac{1}{0}", "1/2/3"),
        *(
            "1,23",
            "1,2345",
            "1.2.3",
            "1 2",
            "1e",
            "0x10",
            "--5",
            "5 6/7 8",
            "3 sqrt2",
            r"2\sqrt{3}",
        ),
        *(
            "(5, 6)",
            "[5",
            "5!",
            "5^2",
            "5 + 1",
            "5 = 6",
            "٣",
            "5½ 3",
            "5 and a half",
            "9" * 401,
            "1\n2",
        ),
    ],
)
def test_what_is_no_number_is_none(text):
    assert read_number(text) is None
    assert not are_same(text, "5") and not are_same(text, "12") and not are_same("5", text)


@pytest.mark.parametrize(
    ("answer", "right", "expected"),
    [
        ("0.5", r"\frac{1}{2}", True),
        ("0.333333333", "1/3", False),
        ("0.1", "1/10", True),
        ("18.0", "18", True),
        ("18.01", "18", False),
        ("1800", "1,800", True),
        ("18", "18 apples", True),
        ("18 pears", "18 apples", False),
        ("18 apple", "18 apples", True),
        ("18 inches", "18 inch", True),
        ("$18", "18 dollars", True),
        ("3 m/s", "3 m", False),
        ("3 glasses", "3 glass", True),
        ("3 N", "3 m", False),
        ("$18", "18 euros", False),
        ("50%", "50", True),
        ("50%", "0.5", False),
        ("East", r"\text{east}", True),
        ("west", r"\text{east}", False),
        (r"2\sqrt3", r"2 \sqrt{3}", True),
        (r"\left( 1, 2 \right]", "(1,2]", True),
        ("(1,2)", "(1,2]", False),
        (r"x=\sqrt{2}", r"\sqrt{2}", True),
        ("x+1", "x + 1", True),
        ("", "", True),
    ],
)
def test_answers_are_compared(answer, right, expected):
    assert are_same(answer, right) is expected


@pytest.mark.parametrize(
    ("answer", "right", "expected"),
    [
        (r"\sqrt{12}", r"2\sqrt{3}", True),
        (r"\sqrt{4}", "2", True),
        (r"\sqrt{13}", r"2\sqrt{3}", False),
        ("(x+1)^2", "x^2+2x+1", True),
        ("(x+1)^2", "x^2+2x", False),
        ("(2,1)", "(1,2)", False),
        ("[1,2]", "(1,2]", False),
        ("5, 6", "5", False),
        ("0.8660254", r"\frac{\sqrt{3}}{2}", False),
        (r"\frac{1}{0}", "5", False),
        ("{{{", "5", False),
        ("", r"\sqrt{2}", False),
    ],
)
def test_symbols_are_compared_by_math_verify(answer, right, expected):
    pytest.importorskip("math_verify", reason="needs the extra `math`")
    assert are_same(answer, right, symbolic=True) is expected
    assert not are_same(answer, right)


def test_without_math_verify_symbolic_is_an_error(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "math_verify", None)
    with pytest.raises(ImportError, match=r'symbolic=true needs `pip install "treeshare\[math\]"`'):
        MathVerifier(PATH, symbolic=True)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}}, of course", r"\frac{1}{2}"),
        (r"\boxed{1} or \fbox{2} \boxed {3}.", "1, 2, 3"),
        (r"\boxed{4} then \boxed{{5}", "4"),
        ("2 + 2 = 4\n#### 4", "4"),
        ("Answer: 1\nAnswer: **2**\nbye", "2"),
        ("The answer is 7.", "7"),
        ("the final answer is: 7", "7"),
        (r"Answer: $\boxed{8}$", "8"),
        ("Answer:\n5", "5"),
        ("Answer: " + "9" * 201, None),
        ("no", None),
        (r"\boxed{", None),
        (r"\boxed{}", None),
    ],
)
def test_the_final_answer_is_found(text, answer):
    assert final_answer(text) == answer


def test_a_files_answers_are_right_in_every_style():
    answers = ["19", "0.5", r"\sqrt2", "$1,250"]
    for i, problem in enumerate(PROBLEMS):
        assert [VERIFIER.check(problem, answer) for answer in answers] == [
            j == i for j in range(len(answers))
        ]


def test_a_solution_grows_line_by_line():
    state = ROOT
    for line in ("Step 1: It holds 24 eggs.", "2. 24 - 5 = 19.", "Answer: 19 eggs"):
        assert not TASK.is_terminal(state) and TASK.answer(state) is None
        assert VERIFIER.promise(PROBLEMS[0], state) == 1.0
        (step,) = TASK.parse("step", state, f" {line}\nAnswer: 5")
        parent, state = "".join(TASK.prompt("step", state)), step.state
        assert "".join(TASK.prompt("step", state)) == f"{parent}{step.text}\n"
    assert state.lines == ("It holds 24 eggs.", "24 - 5 = 19.", "Answer: 19 eggs")
    assert TASK.answer(state) == "19 eggs" and VERIFIER.check(PROBLEMS[0], TASK.answer(state))
    assert TASK.solution(state)[1:] == state.lines


def test_whole_answers_are_read():
    (step,) = TASK.parse("cot", ROOT, "4 * 6 = 24\n24 - 5 = 19\nAnswer: 19.0")
    assert step.state.lines[-1] == "Answer: 19.0" and TASK.answer(step.state) == "19"
    (step,) = TASK.parse("io", ROOT, " 19\nbecause")
    assert (step.text, TASK.answer(step.state), step.state.lines) == ("19", "19", ())
    assert VERIFIER.promise(PROBLEMS[0], step.state) == 1.0
    (step,) = TASK.parse("io", ROOT, r"\boxed{18}")
    assert VERIFIER.promise(PROBLEMS[0], step.state) == 0.0
    assert "".join(TASK.prompt("value", step.state)).endswith("Solution:\nAnswer: 18\nVerdict:")
    assert TASK.solution(step.state)[1:] == ("Answer: 18",)


@pytest.mark.parametrize(
    ("role", "text", "reason"),
    [
        ("step", " \n ", "empty reply"),
        ("io", "", "empty reply"),
        ("io", "9" * 201, "no `Answer:` of at most 200 characters"),
        ("cot", "It is 19.", "no `Answer:` of at most 200 characters"),
    ],
)
def test_a_reply_without_an_answer_is_a_failure(role, text, reason):
    assert TASK.parse(role, ROOT, text) == ParseFailure(role, text, reason)


def test_prompts_show_the_question_in_one_line():
    for role in (*TASK.sampling, "judge"):
        first, question, *_, last = TASK.prompt(role, ROOT)
        assert first.endswith("\n\n") and not last.endswith(" ")
        assert question == (
            "Question: A box holds 4 rows of 6 eggs. 5 are broken. How many are whole?\n"
        )
    with pytest.raises(ValueError, match=r"role='vote' must be one of step, .*, judge"):
        TASK.prompt("vote", ROOT)
    with pytest.raises(ValueError, match="role='value' must be one of step, cot, io"):
        TASK.parse("value", ROOT, "sure")


def test_examples_in_the_prompts_agree_with_each_other():
    right = {}
    for role in ("step", "io"):
        for block in TASK.templates.examples(role):
            question = re.search("Question: (.*)", block)[1]
            answer = final_answer(block.rpartition("\n")[2])
            assert are_same(right.setdefault(question, answer), answer)
    for role in ("value", "judge"):
        for block in TASK.templates.examples(role):
            question = re.search("Question: (.*)", block)[1]
            answered = re.search("Answer: (.*)", block)
            if answered:
                good = are_same(answered[1], right[question])
                assert good == block.endswith(("sure", "yes"))


def test_a_part_of_the_file_can_be_taken():
    def ids(**arguments):
        return [problem.id for problem in MathProblems(PATH, **arguments).problems()]

    assert ids() == ["math/0", "math/1", "math/2", "math/3"]
    assert ids(start=1, limit=2) == ["math/1", "math/2"]
    assert ids(levels=[1]) == ["math/0", "math/3"]
    assert ids(levels=[2, 5]) == ["math/1", "math/2"]
    assert sorted(ids(seed=3)) == ids() and len({tuple(ids(seed=i)) for i in range(5)}) > 1
    assert ids(seed=3, limit=2) == ids(seed=3)[:2]


def test_problems_can_be_named_by_a_field(tmp_path):
    path = tmp_path / "named.jsonl"
    rows = [{"q": "one?", "a": "#### 1", "id": "test/7.json"}, {"q": "two?", "a": 2, "id": 12}]
    path.write_text("\n".join(map(json.dumps, rows)))
    task = MathProblems(str(path), name="mine", id="id", question="q", seed=1)
    verifier = MathVerifier(str(path), id="id", answer="a")
    right = {p.id: verifier.right_answer(p) for p in task.problems()}
    assert right == {"mine/test/7.json": "1", "mine/12": "2"}
    assert task.name == "mine" and verifier_of(MathProblems(PATH, id="question")).id == "question"
    by_index = MathProblems(str(path), name="mine", question="q").problems()[1]
    assert by_index.id == "mine/1"
    assert MathVerifier(str(path), answer="a").right_answer(by_index) == "2"


def test_ids_that_are_not_unique_are_refused(tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(f'{{"question": "{i}?", "answer": {i}, "id": 5}}\n' for i in range(2)))
    for make in (MathProblems, MathVerifier):
        with pytest.raises(ValueError, match=rf"^{path}:2: the id '5' is also that of {path}:1$"):
            make(str(path), id="id")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a/b"}, "name='a/b' must be a text without `/`"),
        ({"id": "level"}, r".*:4: the level 'Level 1' is also that of .*:1"),
        ({"question": "problem"}, r".*math\.jsonl:1: no text or number in a field 'problem'"),
        ({"levels": [1], "level": "hard"}, r".*:1: no text or number in a field 'hard'"),
        ({"levels": [4]}, r"levels=\[4\] leave no problem of .*math\.jsonl"),
        ({"start": 4}, "start=4 must be from 0 to 3"),
        ({"limit": 0}, "limit=0 must be a whole number from 1 to 4, or null for all"),
    ],
)
def test_arguments_out_of_bound_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        MathProblems(PATH, **arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": no problems; at least one line is needed"),
        (b"{}\n", ":1: no text or number in a field 'question'"),
        (b'\n{"question": "?"}\n[]\n', ":3: no text or number in a field 'question'"),
        (b'{"question": null}', ":1: no text or number in a field 'question'"),
        (b"question", ":1: not JSON: .*"),
        (b"\xff", ": not a file in UTF-8: .*"),
        (b'{"question": " "}', ":1: the field 'question' is empty"),
        (b'{"question": true}', ":1: no text or number in a field 'question'"),
        (b'{"question": NaN}', ":1: not JSON: NaN is no number"),
        (b"[" * 100_000, ":1: not JSON: .*"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}{message}$"):
        MathProblems(str(path))
    with pytest.raises(FileNotFoundError):
        MathProblems(str(tmp_path / "none.jsonl"))


fractions = st.builds(Fraction, st.integers(-9999, 9999), st.integers(1, 99))


texts = st.text() | st.text(alphabet="0123456789,./-$\\{} frac%x=\n") | st.text("0193 .,")
pieces = [*"01239 .,-=x${}Ns", r"\frac", r"\text{", r"\left", r"\!", "°", r"^\circ", " cm"]
latex = st.lists(st.sampled_from(pieces)).map("".join)


@given(texts | latex)
def test_the_normal_form_is_the_same_answer_and_stays(text):
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)
    if 0 < len(text) <= 150 and len(normalize_answer(text)) <= 150:
        assert are_same(normalize_answer(text), text)


@given(fractions, fractions)
def test_fractions_are_the_same_exactly_if_equal(a, b):
    written = [str(a), rf"\frac{{{a.numerator}}}{{{a.denominator}}}", f"{a} cm"]
    for text in written:
        assert are_same(text, str(a)) and are_same(text, str(b)) == (a == b)
    assert are_same(f"{float(a)!r}", str(a)) == (Fraction(repr(float(a))) == a)


@given(texts | latex)
@example("1 9")
def test_nothing_raises_and_nothing_wrong_passes(text):
    for role in ("step", "cot", "io"):
        assert isinstance(TASK.parse(role, ROOT, text), list | ParseFailure)
    TASK.parse_value(ROOT, text)
    assert json.dumps(normalize_answer(text))
    if VERIFIER.check(PROBLEMS[0], text):
        assert re.search(r"19|\d/|frac", re.sub("[ ,$]", "", text))
