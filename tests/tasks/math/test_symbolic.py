"""math-verify compares in a separate process: hostile answers are wrong and take bounded time."""

import json

import pytest

from treeshare.tasks.math import problems
from treeshare.tasks.math.problems import MathProblems, MathVerifier

pytest.importorskip("math_verify", reason="needs the extra `math`")


def test_math_verify_runs_in_the_sandbox(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": r"x^2 + 2\sqrt{2}"}))
    verifier = MathVerifier(str(path), symbolic=True, seconds=2)
    (problem,) = MathProblems(str(path)).problems()
    assert verifier.check(problem, r"x^2 + 2\sqrt{2}")
    assert verifier.check(problem, r"\sqrt{8} + x^2")
    assert not verifier.check(problem, r"\sqrt{8} + x^3")
    assert verifier.scoring_failures == {}
    for answer in ("9^{9^{9^{9}}}", "1000000! + x", "(x+1)^{100000}"):
        assert not verifier.check(problem, answer)
    assert set(verifier.scoring_failures) <= {"timed_out", "raised"}
    assert verifier.scoring_failures["timed_out"] >= 1
    assert verifier.check(problem, r"\sqrt{8} + x^2")  # by the next process


def test_without_symbolic_there_is_no_process(tmp_path, monkeypatch):
    monkeypatch.delattr(problems, "Sandbox")
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": "1/2"}))
    verifier = MathVerifier(str(path))
    (problem,) = MathProblems(str(path)).problems()
    assert verifier.check(problem, "0.5") and not verifier.check(problem, "0.51")
    assert verifier.scoring_failures == {}
