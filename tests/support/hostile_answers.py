"""Try hostile answers on the scorers of reasoning-gym: `python tests/support/hostile_answers.py`.

The script marks every answer of `hostile_answers` for the first question of each data set, in the
sandbox. For each data set it prints how often the scorer raised, exited or ran out of time, the
slowest answer, and what was executed (a file that the answers try to make, or more audit events
than harmless answers cause). Each data set's own answers must get the same mark as without the
sandbox. It takes some minutes, and ends with exit code 1 if anything was executed, took longer than
the limit or got another mark. Names of data sets may be given as arguments.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from treeshare.tasks.sandbox.parent import Sandbox, SandboxFailure

MARKER = "treeshare.tasks.reasoning_gym.marker"
HARMLESS = ("no idea", "0", "24", "[1, 2]", "4 + 4 * 5", '{"a": 1}', "x**2", "['A']", "A=1,B=2")
SIZE, SEED, SECONDS = 5_000, 3, 5.0


def hostile_answers(canary: Path) -> list[str]:
    """Return texts that try to make the file `canary`, end the process, or use time and memory."""
    touch = f"open({str(canary)!r}, 'w')"
    shell = f"touch {canary}"
    return [
        f"__import__('os').system({shell!r})",
        f"__import__('pathlib').Path({str(canary)!r}).touch()",
        touch,
        f"[{touch}]",
        f"[[{touch} for _ in [1]]]",
        f"(lambda: {touch})()",
        f"[f := {touch}]",
        f'f"{{{touch}}}"',
        f"eval({touch!r})",
        f"exec({touch!r})",
        f"().__class__.__base__.__subclasses__() and {touch}",
        f"[c for c in ().__class__.__base__.__subclasses__() if 'Pop' in str(c)][0]({shell!r})",
        f"sympify({touch!r}) + S({touch!r})",
        f"lambdify(x, {touch!r})(1)",
        f"x.__class__.__init__.__globals__['__builtins__']['open']({str(canary)!r}, 'w')",
        f"getattr(__import__('o' + 's'), 'sys' + 'tem')({shell!r})",
        f"4 + 4 # {touch}",
        f"1\n{touch}",
        f"{{'a': {touch}}}",
        f"**{touch}",
        f"A={touch},B=2",
        "__import__('os').fork()",
        "__import__('os')._exit(0)",
        "__import__('os').kill(__import__('os').getppid(), 9)",
        "__import__('socket').create_connection(('127.0.0.1', 80))",
        "exit()",
        "quit(1)",
        "raise SystemExit",
        "__import__('sys').exit(3)",
        "9**9**9",
        "9**9**9**9",
        "(9**99999999)%7",
        "2**-999999999",
        "factorial(10**7)",
        "10000000!",
        "integrate(exp(x**x**x), x)",
        "(x + 1)**100000 + C",
        "x**x**x**x**x**x**x**x + C",
        "sin(sin(sin(cos(tan(sin(x)*cos(x))**50)**40)**30)**20)**10 + C",
        "'a' * 10**10",
        "[0] * 10**10",
        "[[0] * 10**5] * 10**5",
        "[x for x in range(10**10)]",
        "[1 for a in range(10**4) for b in range(10**4) for c in range(10**4)]",
        "(" * 5_000 + ")" * 5_000,
        "[" * 50_000 + "]" * 50_000,
        "-" * 20_000 + "1",
        "1" * 90_000,
        "1e999999999",
        "1/3" + "/1" * 5_000,
        "A" * 99_999,
        "A" * 10**6,
        "(((A & B) | ~C) -> " * 200,
        "\0",
        "[1, 2]\0",
        "\ud800",
        "['\udfff']",
        "\N{RIGHT-TO-LEFT OVERRIDE}\N{FULLWIDTH DIGIT ONE}\N{SUPERSCRIPT TWO}",
        "[[1, 2], [3]]",
        "[[1, 2], [3, null]]",
        "null",
        "true",
        "[]",
        "[[]]",
        "[null]",
        "{}",
        '{"1": {"2": [3, {"4": null}]}}',
        '[{"action": 1}, 2]',
        "NaN",
        "nan",
        "[NaN, Infinity]",
        "-Infinity",
        '{"a": 1e400}',
        '"' + "a" * 50_000 + '"',
        "\n" * 50_000,
        "0,0\n" * 10_000,
        "×" * 10_000,
        "=" * 10_000,
    ]


@dataclass
class Outcome:
    """The results of the hostile answers for one data set."""

    dataset: str
    answers: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    slowest_answer: str = ""
    highest_mark: float = 0.0
    executed: list[str] = field(default_factory=list)
    own_marks: list[float] = field(default_factory=list)
    wrong_marks: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.executed and not self.wrong_marks and self.slowest < SECONDS + 1


def right_answers(name: str, count: int) -> list[tuple[str, float]]:
    """Return the data set's own answers to its first questions, with marks made in this process.

    If an entry has no answer, it is one of the entry's metadata, or "".
    """
    from treeshare.tasks.reasoning_gym.marker import Marker

    marker, found = Marker(name, {}, SEED, SIZE), []
    for index in range(count):
        entry = marker.entry(index)
        answer = entry["answer"]
        if answer is None:
            known = ("example_answer", "solution", "example_correct_answer", "possible_answer")
            answer = next((entry["metadata"][key] for key in known if key in entry["metadata"]), "")
            answer = answer if isinstance(answer, str) else json.dumps(answer)
        found.append((answer, float(marker.dataset.score_answer(answer, entry))))
    return found


def tried(name: str, answers: Sequence[str], canary: Path, *, own: int = 3) -> Outcome:
    """Mark the answers for the first question of a data set."""
    outcome = Outcome(name)
    sandbox = Sandbox(MARKER, "Marker", (name, {}, SEED, SIZE), seconds=SECONDS)
    with contextlib.closing(sandbox):
        usual: dict[str, int] = {}
        for index, (answer, mark) in enumerate(right_answers(name, own)):
            sandbox.call("question", index, is_limited=False)
            got = _mark(sandbox, index, answer)
            outcome.own_marks.append(mark)
            if got != min(1.0, max(0.0, mark)):
                outcome.wrong_marks.append(f"{answer[:60]!r}: {got}, alone {mark}")
            usual = _largest(usual, sandbox.events)
        for answer in HARMLESS:
            _mark(sandbox, 0, answer)
            usual = _largest(usual, sandbox.events)
        sandbox.failures.clear()
        for answer in answers:
            sandbox.call("question", 0, is_limited=False)  # the process may be a new one
            began = time.monotonic()
            outcome.highest_mark = max(outcome.highest_mark, _mark(sandbox, 0, answer))
            seconds = time.monotonic() - began
            outcome.answers += 1
            if seconds > outcome.slowest:
                outcome.slowest, outcome.slowest_answer = seconds, answer
            beyond = {
                kind: count - usual.get(kind, 0)
                for kind, count in sandbox.events.items()
                if count > usual.get(kind, 0) and kind != "compile"  # `ast.parse` of the guard
            }
            if canary.exists() or beyond:
                outcome.executed.append(f"{answer[:60]!r}: {beyond} {canary.exists()}")
                canary.unlink(missing_ok=True)
        outcome.failures = dict(sandbox.failures)
    return outcome


def _mark(sandbox: Sandbox, index: int, answer: str) -> float:
    try:
        return float(sandbox.call("mark", index, answer))
    except SandboxFailure:
        return 0.0


def _largest(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {kind: max(a.get(kind, 0), b.get(kind, 0)) for kind in a | b}


def main(names: Sequence[str]) -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":  # the entries here must be those of the sandbox
        os.execve(
            sys.executable,
            [sys.executable, __file__, *names],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    from reasoning_gym.factory import DATASETS

    names = names or sorted(set(DATASETS) - {"composite"})
    bad, total, began = 0, 0, time.monotonic()
    with TemporaryDirectory() as folder:
        canary = Path(folder) / "canary"
        answers = hostile_answers(canary)
        for name in names:
            with contextlib.redirect_stdout(io.StringIO()):
                outcome = tried(name, answers, canary)
            bad += not outcome.is_good
            total += outcome.answers
            print(
                f"{'ok ' if outcome.is_good else 'BAD'} {name:28} {outcome.failures} "
                f"slowest {outcome.slowest:.2f} s {outcome.slowest_answer[:24]!r}, highest mark "
                f"{outcome.highest_mark:.2f}, own {outcome.own_marks}",
                *outcome.executed,
                *outcome.wrong_marks,
                sep="\n      ",
                flush=True,
            )
    minutes = (time.monotonic() - began) / 60
    print(f"{len(names)} data sets x {len(answers)} answers = {total} marks in {minutes:.1f} min")
    print(f"{bad} data sets with something executed, too slow or marked differently")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
