"""Print how well readers of final answers judge the reference set, a table of docs/tasks.md.

    python tests/support/answer_table.py [SET.jsonl]

The readers are this project's without and with `symbolic`, math-verify alone as its README uses it,
and the two filters of lm-evaluation-harness's task gsm8k (version 3.0). A false accept is a wrong
reply judged right; a false refusal is a right reply judged wrong.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from treeshare.tasks.math.answers import are_same, final_answer, normalize_answer

ANSWER_SET = Path(__file__).resolve().parents[1] / "tasks/math/answer_set.jsonl"

Judge = Callable[[str, str], bool]


def read_set(path: Path = ANSWER_SET) -> list[dict[str, Any]]:
    """Read the set: rows with `kind`, `reply`, `gold` and `same`."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def ours(reply: str, gold: str, *, symbolic: bool = False) -> bool:
    """Judge as `MathProblems` (role `cot`) and `MathVerifier` do."""
    found = final_answer(reply)
    return found is not None and are_same(normalize_answer(found), gold, symbolic=symbolic)


def math_verify_alone(reply: str, gold: str) -> bool:
    """Judge by `verify(parse(gold), parse(answer))`, with the gold in `$...$` as in its README."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${gold}$"), parse(reply)))


def math_verify_on_our_answer(reply: str, gold: str) -> bool:
    """Let math-verify compare the answer that our reader finds, with both in a box.

    math-verify does not look for LaTeX without delimiters.
    """
    from math_verify import parse, verify

    found = final_answer(reply)
    return found is not None and bool(
        verify(parse(rf"\boxed{{{gold}}}"), parse(rf"\boxed{{{found}}}"))
    )


def harness(pattern: str, place: int) -> Judge:
    """Make a judge that compares a pattern's match as lm-evaluation-harness does in gsm8k.yaml."""

    def judge(reply: str, gold: str) -> bool:
        matches = re.findall(pattern, reply)
        if not matches:
            return False
        match = matches[place]
        found = next(part for part in match if part) if isinstance(match, tuple) else match
        return _filtered(found.strip()) == _filtered(gold)

    return judge


def _filtered(text: str) -> str:
    for ignored in (",", r"\$", "(?s).*#### ", r"\.$"):
        text = re.sub(ignored, "", text)
    return text.lower()


JUDGES: dict[str, Judge] = {
    "treeshare": ours,
    "treeshare, symbolic": lambda reply, gold: ours(reply, gold, symbolic=True),
    "math-verify alone": math_verify_alone,
    "math-verify, on the answer we find": math_verify_on_our_answer,
    "harness, strict-match": harness(r"#### (\-?[0-9\.\,]+)", 0),
    "harness, flexible-extract": harness(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1),
}


def mistakes(judge: Judge, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that are judged wrongly."""
    return [row for row in rows if judge(row["reply"], row["gold"]) != row["same"]]


def main() -> None:
    logging.disable(logging.WARNING)
    shown = "-v" in sys.argv
    paths = [argument for argument in sys.argv[1:] if argument != "-v"]
    rows = read_set(Path(paths[0]) if paths else ANSWER_SET)
    same = sum(row["same"] for row in rows)
    print(f"{len(rows)} replies, {same} the same as the gold and {len(rows) - same} not.\n")
    print("| reader | false accepts | false refusals |\n|---|--:|--:|")
    for name, judge in JUDGES.items():
        wrong = mistakes(judge, rows)
        accepts = [row for row in wrong if not row["same"]]
        refusals = [row for row in wrong if row["same"]]
        shares = [
            f"{len(part)} ({100 * len(part) / whole:.1f} %)"
            for part, whole in ((accepts, len(rows) - same), (refusals, same))
        ]
        print(f"| {name} | {' | '.join(shares)} |")
        if shown and name.startswith("treeshare"):
            for row in wrong:
                print(
                    "   ",
                    "ACCEPT" if not row["same"] else "refuse",
                    row["kind"],
                    repr(row["reply"]),
                    repr(row["gold"]),
                    repr(final_answer(row["reply"])),
                )


if __name__ == "__main__":
    main()
