"""Mini crosswords: words that fit, replies, the file and ToT's three accuracies."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import task_options
from hypothesis import given
from hypothesis import strategies as st
from places import DATA

from treeshare.tasks.crosswords.task import (
    SLOTS,
    Board,
    Crosswords,
    CrosswordsVerifier,
    read_games,
)
from treeshare.tasks.task import (
    HasGrades,
    HasHeuristic,
    HasJudgement,
    HasValues,
    ParseFailure,
    Task,
)

TOT = DATA / "tot/mini0505_0_100_5.json"
CLUES = [f"clue of {slot}" for slot in SLOTS]
ROWS = "scent canoe arson rouse fleet"
GAMES = json.loads((Path(task_options.__file__).parent / "task_files/crosswords.json").read_text())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("games") / "games.json"
    path.write_text(json.dumps(GAMES))
    return str(path)


@pytest.fixture(scope="module")
def task(path):
    return Crosswords(path)


@pytest.fixture(scope="module")
def verifier(path):
    return CrosswordsVerifier(path)


def filled(task, *lines):
    state = task.root(task.problems()[0])
    for line in lines:
        (step,) = task.parse("step", state, line)
        state = step.state
    return state


def test_is_a_task_that_keeps_no_letters(task, verifier):
    for protocol in (Task, HasValues, HasJudgement, HasHeuristic):
        assert isinstance(task, protocol)
    assert isinstance(verifier, HasGrades)
    assert "scent" not in repr(vars(task)).lower().replace("', '", "")


def test_slots_are_five_rows_and_five_columns():
    assert list(SLOTS) == ["h1", "h2", "h3", "h4", "h5", "v1", "v2", "v3", "v4", "v5"]
    assert SLOTS["h2"] == (5, 6, 7, 8, 9) and SLOTS["v2"] == (1, 6, 11, 16, 21)


def test_words_are_filled_in_until_the_board_is_full(task, verifier):
    problem = task.problems()[0]
    state = filled(task, "h1. scent", "v2. CAROL", " - v5: tenet (certain)")
    assert str(state) == "scent _a__e _r__n _o__e _l__t"
    assert state.words == ("h1. scent", "v2. carol", "v5. tenet")
    assert not task.is_terminal(state) and task.answer(state) is None
    assert task.heuristic(state) == 13 / 25 and verifier.promise(problem, state) == 1
    assert verifier.grades(problem, state) == {"letters": 13 / 25, "words": 3 / 10}
    full = filled(task, *(f"h{i}. {row}" for i, row in enumerate(ROWS.split(), start=1)))
    assert task.is_terminal(full) and task.answer(full) == ROWS
    assert verifier.check(problem, task.answer(full))
    assert verifier.grades(problem, full) == {"letters": 1.0, "words": 1.0}


def test_equal_boards_are_equal_however_they_came_about(task):
    one = filled(task, "h1. scent", "h2. canoe", "h3. arson", "h4. rouse", "h5. fleet")
    other = filled(task, "v1. scarf", "v2. carol", "v3. ensue", "v4. noose", "v5. tenet")
    assert one == other and hash(one) == hash(other) and one.words != other.words


def test_a_wrong_letter_ends_the_promise(task, verifier):
    state = filled(task, "h1. scene")
    problem = task.problems()[0]
    assert verifier.promise(problem, state) == 0.0
    assert verifier.grades(problem, state) == {"letters": 4 / 25, "words": 0.0}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("h1. scent", "h1 is filled"),
        ("v1. heart", "heart does not fit s____ of v1"),
        ("h6. canoe", "not a word such as `h1. heart`"),
        ("h2. canoes", "not a word such as `h1. heart`"),
        ("h2. cano", "not a word such as `h1. heart`"),
        ("h2. c4noe", "not a word such as `h1. heart`"),
        ("canoe", "not a word such as `h1. heart`"),
        ("h2. cañoe", "not a word such as `h1. heart`"),
        ("", "empty reply"),
    ],
)
def test_a_line_that_is_no_step_has_a_reason(task, line, reason):
    state = filled(task, "h1. scent")
    for role in ("propose", "step"):
        assert task.parse(role, state, line) == ParseFailure(role, line, reason)


def test_several_words_are_proposed_but_one_step_is_taken(task):
    text = "h1. scent (certain)\n2. nothing\nv1. scarf\nh1. story"
    root = task.root(task.problems()[0])
    assert [step.text for step in task.parse("propose", root, text)] == [
        *("h1. scent", "v1. scarf", "h1. story")
    ]
    assert [step.text for step in task.parse("step", root, text)] == ["h1. scent"]


@pytest.mark.parametrize(
    "text",
    [
        f" {ROWS}",
        f"h1. scent\nRows: {ROWS.upper()}",
        "Rows:\ns c e n t\nc a n o e\na r s o n\nr o u s e\nf l e e t\n",
        "**Rows:** scent, canoe, arson, rouse, fleet.",
        "h1. SCENT\nh2. CANOE\nh3. ARSON\nh4. ROUSE\nh5. FLEET",
        "Thoughts:\nh1. A smell: scent\n\nOutput:\n"
        "S C E N T\nC A N O E\nA R S O N\nR O U S E\nF L E E T",
        "ROWS:\u00a0" + " ".join(ROWS.replace(" ", "")),
        " ".join(ROWS.replace(" ", "")).replace("r", "r\n"),
        ROWS.replace(" a", "\na"),
    ],
)
def test_whole_answers_are_read(task, text):
    for role in ("io", "cot"):
        (step,) = task.parse(role, task.root(task.problems()[0]), text)
        assert task.answer(step.state) == ROWS and task.is_terminal(step.state)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{ROWS} fleet",
        "scentcanoe arson rouse fleet",
        "I do not know the answer",
        "So we do not know",
        "Rows:",
    ],
)
def test_what_is_not_five_rows_is_no_answer_and_wrong(task, verifier, text):
    problem = task.problems()[0]
    for role in ("io", "cot"):
        failure = task.parse(role, task.root(problem), text)
        assert failure == ParseFailure(role, text, "not five rows of five letters")
    assert not verifier.check(problem, text)


def test_only_all_letters_are_right(task, verifier):
    problem, other = task.problems()
    assert verifier.check(problem, ROWS) and not verifier.check(other, ROWS)
    for i, letter in enumerate(ROWS):
        if letter != " ":
            assert not verifier.check(problem, f"{ROWS[:i]}z{ROWS[i + 1 :]}")


def test_rows_can_be_given(path, verifier):
    task = Crosswords(path, given=2, limit=1)
    (problem,) = task.problems()
    root = task.root(problem)
    assert str(root) == "scent canoe _____ _____ _____"
    assert "".join(task.prompt("step", root)).endswith("\nWords:\nh1. scent\nh2. canoe\n")
    assert verifier.promise(problem, root) == 1


def test_prompts_show_the_clues_and_the_letters(task):
    state = filled(task, "h1. scent")
    for role in (*task.sampling, "judge"):
        first, shown, *_, last = task.prompt(role, state)
        assert first.endswith("\n\n") and shown.count("\n") == 10 and "clue of v5" in shown
        assert not last.endswith(" ")
        assert ("v1. clue of v1: s____\n" in shown) == (role not in ("step", "cot"))
    parent = "".join(task.prompt("cot", task.root(task.problems()[0])))
    assert "".join(task.prompt("step", state)) == f"{parent}h1. scent\n"
    with pytest.raises(ValueError, match=r"role='vote' must be one of propose, step, .*, judge"):
        task.prompt("vote", state)
    with pytest.raises(ValueError, match="role='value' must be one of propose, step, io, cot"):
        task.parse("value", state, "sure")


def test_examples_in_the_prompts_are_right(task):
    squares = [Board(tuple(CLUES), "".join(letters).lower()) for _, letters in GAMES]
    for role in ("propose", "step", "io", "value", "judge"):
        for block, square in zip(task.templates.examples(role), squares * 2, strict=False):
            shown = re.findall(r"^([hv][1-5])\. .*?(?:: ([a-z_]{5}))?$", block, re.MULTILINE)
            if "Verdict: maybe" in block:
                square = squares[1]
            is_wrong = "impossible" in block or "no" in block.rpartition(": ")[2].split()
            fits = [
                all(a in ("_", b) for a, b in zip(pattern, square.word(slot), strict=True))
                for slot, pattern in shown
                if pattern
            ]
            assert all(fits) is not is_wrong
            for slot, word in re.findall(r"^([hv][1-5])\. ([a-z]{5})$", block, re.MULTILINE):
                assert square.word(slot) == word
            if "Rows:" in block:
                assert block.rpartition("Rows: ")[2] == str(square)


@pytest.mark.parametrize(
    ("text", "board"),
    [
        ("S C E N\nC A N O E\nA R S O N\nR O U S E\nF L E E T", "scen_ canoe arson rouse fleet"),
        ("S C E N T S\nC A N O E\n\nA R S O N", "scent canoe arson _____ _____"),
        ("SCENTS\nCANOE\nARSON\nROUSE\nFLEET", "_____ canoe arson rouse fleet"),
        ("S _ E N T\nC A N Ö E\n? R S O N", "s_ent can_e _rson _____ _____"),
        ("s C e N t\n\u212a A N O E\nA R \u017f O N", "scent _anoe ar_on _____ _____"),
        ("T A S K S\n" + "\n".join(["A B C D E"] * 5), "abcde abcde abcde abcde abcde"),
        ("scent canoe arson rouse flee", "scent canoe arson rouse flee_"),
    ],
)
def test_rows_are_marked_as_tree_of_thoughts_marks_them(task, verifier, text, board):
    problem = task.problems()[0]
    (step,) = task.parse("io", task.root(problem), text)
    assert str(step.state) == board
    right = (ROWS, *map("".join, zip(*ROWS.split(), strict=True)))
    rows = board.split()
    columns = map("".join, zip(*rows, strict=True))
    words = sum(a == b for a, b in zip([*rows, *columns], [*ROWS.split(), *right[1:]], strict=True))
    letters = sum(a == b != " " for a, b in zip(board, ROWS, strict=True))
    assert verifier.grades(problem, step.state) == {"letters": letters / 25, "words": words / 10}
    assert task.is_terminal(step.state) == ("_" not in board)


@pytest.mark.parametrize(
    "odd", ["h\u0130art", "hear\u017f", "\u212aeart", "hear\u0074\u0308", "heart\u00df"]
)
def test_letters_of_a_word_are_ascii(task, odd):
    root = task.root(task.problems()[0])
    for role in ("propose", "step"):
        assert isinstance(task.parse(role, root, f"h1. {odd}"), ParseFailure)
    assert "".join(task.parse("step", root, "ｈ1.\u00a0HE\u200bART")[0].state.word("h1")) == "heart"


def test_a_verdict_is_read(task):
    state = task.root(task.problems()[0])
    assert task.parse_value(state, "Maybe.") == 0.5
    assert isinstance(task.parse_value(state, "not sure, Maybe."), ParseFailure)
    assert isinstance(task.parse_value(state, "surely"), ParseFailure)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", ": not JSON: .*"),
        ("[]", ": not a list of at least one game"),
        ("{}", ": not a list of at least one game"),
        (json.dumps([[CLUES, ["a"] * 24]]), ": game 0 is not a pair of ten clues and 25 letters"),
        (json.dumps([*GAMES, [CLUES[1:], ["a"] * 25]]), ": game 2 is not a pair of .*"),
        (json.dumps([[CLUES, ["a"] * 24 + ["é"]]]), ": game 0 is not a pair of .*"),
        (json.dumps([[CLUES, ["a"] * 24 + [1]]]), ": game 0 is not a pair of .*"),
        (json.dumps([1]), ": game 0 is not a pair of .*"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"^{path}{message}$"):
        Crosswords(str(path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"given": 5}, "given=5 must be from 0 to 4"),
        ({"start": 2}, "start=2 must be from 0 to 1"),
        ({"limit": 3}, "limit=3 must be a whole number from 1 to 2, or null for all"),
    ],
)
def test_arguments_out_of_bound_are_refused(path, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Crosswords(path, **arguments)
    with pytest.raises(FileNotFoundError):
        Crosswords("none.json")


@pytest.mark.skipif(not TOT.exists(), reason=f"needs ToT's games at {TOT}")
def test_tots_games_are_read():
    games = read_games(str(TOT))
    assert len(games) == 20
    assert games[0][1][:10] == "agendmotor" and games[0][0][1] == "An engine"
    assert {"scent", "heart"}.isdisjoint(letters[:5] for _, letters in games)
    task, verifier = Crosswords(str(TOT)), CrosswordsVerifier(str(TOT))
    for problem, (_, letters) in zip(task.problems(), games, strict=True):
        assert verifier.check(problem, " ".join(re.findall(".....", letters)))


@given(st.text() | st.text(alphabet="hv12. scentRow:\n"))
def test_nothing_raises_and_nothing_wrong_passes(task, verifier, text):
    problem = task.problems()[0]
    for state in (task.root(problem), filled(task, "h1. scent")):
        for role in ("propose", "step", "io", "cot"):
            assert isinstance(task.parse(role, state, text), list | ParseFailure)
        task.parse_value(state, text)
    if verifier.check(problem, text):
        assert re.sub("[^a-z]", "", text.lower()) == ROWS.replace(" ", "")
