"""The words of Countdown: those of the Game of 24 with a target of its own in every puzzle.

Per role, the part of the prompt that is the same for all states. `EXAMPLES` are the puzzles in it,
which the generator leaves out.
"""

from __future__ import annotations

from .prompts import Words

EXAMPLES = frozenset(
    {
        ((2, 5, 14, 20), 52),
        ((3, 6, 15), 33),
        ((1, 5, 9, 14), 60),
        ((2, 3, 7, 15, 18), 31),
        ((3, 8, 14), 18),
        ((1, 2, 5, 20), 72),
        ((2, 5, 14), 38),
        ((5, 6, 8, 16), 50),
        ((15, 16, 17), 99),
        ((6, 7, 9), 40),
        ((3, 7, 18), 50),
        ((2, 4, 16), 32),
    }
)
"""Numbers, ascending, and target of every example of three numbers or more."""

PROPOSE = """\
Combine two of the numbers by + - * or /. The result replaces them. List good next steps towards \
the target, one a line, with the numbers left.

Target: 52
Numbers: 2 5 14 20
Next steps:
5 * 14 = 70 (left: 2 20 70)
20 - 2 = 18 (left: 5 14 18)
2 * 20 = 40 (left: 5 14 40)
2 + 20 = 22 (left: 5 14 22)

Target: 10
Numbers: 4 6
Next steps:
4 + 6 = 10 (left: 10)
4 * 6 = 24 (left: 24)

Target: 33
Numbers: 3 6 15
Next steps:
3 * 6 = 18 (left: 15 18)
15 / 3 = 5 (left: 5 6)
6 + 15 = 21 (left: 3 21)

"""

STEPS = """\
Make the target from the numbers. Each step combines two of them by + - * or /, and the result \
replaces them. When only the target is left, write the answer as one expression that uses each \
number exactly once.

Target: 60
Numbers: 1 5 9 14
Step: 5 * 9 = 45 (left: 1 14 45)
Step: 14 + 45 = 59 (left: 1 59)
Step: 1 + 59 = 60 (left: 60)
Answer: 5 * 9 + 14 + 1 = 60

Target: 31
Numbers: 2 3 7 15 18
Step: 18 / 3 = 6 (left: 2 6 7 15)
Step: 2 * 15 = 30 (left: 6 7 30)
Step: 7 - 6 = 1 (left: 1 30)
Step: 1 + 30 = 31 (left: 31)
Answer: 2 * 15 + (7 - 18 / 3) = 31

"""

SOLVE = """\
Make the target from the numbers by + - * / and parentheses. Use each number exactly once.

Target: 60
Numbers: 1 5 9 14
Answer: 5 * 9 + 14 + 1 = 60

Target: 31
Numbers: 2 3 7 15 18
Answer: 2 * 15 + (7 - 18 / 3) = 31

Target: 18
Numbers: 3 8 14
Answer: (14 - 8) * 3 = 18

Target: 72
Numbers: 1 2 5 20
Answer: (20 - 2) * (5 - 1) = 72

"""

VALUE = """\
Can all the numbers, each used exactly once, still make the target by + - * /? Or is the answer \
given right? Say sure, likely or impossible.

Target: 11
Numbers: 3 8
Verdict: sure

Target: 30
Numbers: 2 17
Verdict: impossible

Target: 38
Numbers: 2 5 14
Verdict: sure

Target: 50
Numbers: 5 6 8 16
Verdict: likely

Target: 99
Numbers: 15 16 17
Verdict: impossible

Target: 18
Numbers: 3 8 14
Answer: (14 - 8) * 3 = 18
Verdict: sure

Target: 40
Numbers: 6 7 9
Verdict: likely

Target: 60
Numbers: 1 5 9 14
Answer: 5 * (14 - 1) = 60
Verdict: impossible

Target: 45
Numbers: 5 9
Verdict: sure

Target: 31
Numbers: 2 3 7 15 18
Answer: 2 * 15 + 7 + 18 / 3 = 43
Verdict: impossible

"""

JUDGE = """\
Can all the numbers, each used exactly once, still make the target by + - * /? Or is the answer \
given right? Say yes or no.

Target: 80
Numbers: 4 20
Makes 80: yes

Target: 24
Numbers: 5 16
Makes 24: no

Target: 18
Numbers: 3 8 14
Answer: (14 - 8) * 3 = 18
Makes 18: yes

Target: 50
Numbers: 3 7 18
Makes 50: no

Target: 60
Numbers: 1 5 9 14
Answer: 5 * (14 - 1) = 60
Makes 60: no

Target: 32
Numbers: 2 4 16
Makes 32: yes

Target: 31
Numbers: 2 3 7 15 18
Answer: 2 * 15 + 7 + 18 / 3 = 43
Makes 31: no

Target: 60
Numbers: 1 5 9 14
Answer: 5 * 9 + 14 + 1 = 60
Makes 60: yes

"""

VOTE = """\
Which option is best for making the target by + - * / with each of its numbers used exactly once? \
A right answer is best of all.

Target: 40
Option 1: 15 16 17
Option 2: 5 8
Option 3: 1 2 4
Best option: 2

Target: 38
Option 1: 2 5 14
Option 2: 2 17
Best option: 1

Target: 18
Option 1: 11 12
Option 2: 16 17
Option 3: (14 - 8) * 3 = 18
Best option: 3

"""

REFLECT = """\
These attempts to make the target failed. Say in one short line what to do otherwise.

Target: 60
Numbers: 1 5 9 14
Step: 5 * 14 = 70 (left: 1 9 70)
Step: 70 - 9 = 61 (left: 1 61)
Step: 1 + 61 = 62 (left: 62)
Answer: 1 + ((5 * 14) - 9) = 62
Lesson: 5 * 14 is too large; begin with 5 * 9 = 45.

Target: 18
Numbers: 3 8 14
Step: 3 + 8 = 11 (left: 11 14)
Step: 14 - 11 = 3 (left: 3)
Answer: 14 - (3 + 8) = 3
Lesson: Multiply by 3; make 6 of 14 and 8.

"""

FEEDBACK = """\
Does the answer make the target by + - * / and use each number exactly once? Say correct, or in \
one short line what is wrong.

Target: 60
Numbers: 1 5 9 14
Answer: 5 * 9 + 14 + 1 = 60
Feedback: correct

Target: 18
Numbers: 3 8 14
Answer: 3 * 6 = 18
Feedback: wrong, 8 and 14 are not used and 6 is no number

Target: 31
Numbers: 2 3 7 15 18
Answer: 2 * 15 + 7 + 18 / 3 = 31
Feedback: wrong, it makes 37 + 6 = 43

"""

REFINE = """\
Make the target from the numbers by + - * / and parentheses. Use each number exactly once. Mend \
what the feedback finds wrong.

Target: 18
Numbers: 3 8 14
Answer: 3 * 6 = 18
Feedback: wrong, 8 and 14 are not used and 6 is no number
Answer: (14 - 8) * 3 = 18

Target: 31
Numbers: 2 3 7 15 18
Answer: 2 * 15 + 7 + 18 / 3 = 31
Feedback: wrong, it makes 37 + 6 = 43
Answer: 2 * 15 + (7 - 18 / 3) = 31

"""

WORDS = Words(
    propose=PROPOSE,
    steps=STEPS,
    solve=SOLVE,
    value=VALUE,
    judge=JUDGE,
    vote=VOTE,
    reflect=REFLECT,
    feedback=FEEDBACK,
    refine=REFINE,
    is_target_shown=True,
)
