"""The words of the Game of 24: per role, the part of the prompt that is the same for all states.

After Tree of Thoughts (arXiv 2305.10601 section 4.1) and, for `feedback` and `refine`, Self-Refine
(arXiv 2303.17651), in our own words. Every example has a number above 13, or fewer than four
numbers, so none can be a puzzle.
"""

from __future__ import annotations

from .prompts import Words

PROPOSE = """\
Combine two of the numbers by + - * or /. The result replaces them. List good next steps, one a \
line, with the numbers left.

Numbers: 2 5 14 20
Next steps:
2 * 5 = 10 (left: 10 14 20)
20 - 14 = 6 (left: 2 5 6)
14 / 2 = 7 (left: 5 7 20)
5 + 20 = 25 (left: 2 14 25)

Numbers: 4 6
Next steps:
4 * 6 = 24 (left: 24)
4 + 6 = 10 (left: 10)

Numbers: 3 6 15
Next steps:
3 + 6 = 9 (left: 9 15)
15 / 3 = 5 (left: 5 6)
3 * 15 = 45 (left: 6 45)

"""

STEPS = """\
Make 24 from the numbers. Each step combines two of them by + - * or /, and the result replaces \
them. When only 24 is left, write the answer as one expression that uses each number exactly once.

Numbers: 1 5 9 14
Step: 14 - 9 = 5 (left: 1 5 5)
Step: 5 * 5 = 25 (left: 1 25)
Step: 25 - 1 = 24 (left: 24)
Answer: 5 * (14 - 9) - 1 = 24

Numbers: 2 3 15 18
Step: 18 / 3 = 6 (left: 2 6 15)
Step: 2 * 15 = 30 (left: 6 30)
Step: 30 - 6 = 24 (left: 24)
Answer: 2 * 15 - 18 / 3 = 24

"""

SOLVE = """\
Make 24 from the numbers by + - * / and parentheses. Use each number exactly once.

Numbers: 1 5 9 14
Answer: 5 * (14 - 9) - 1 = 24

Numbers: 2 3 15 18
Answer: 2 * 15 - 18 / 3 = 24

Numbers: 1 3 8 14
Answer: (14 - 8) * (1 + 3) = 24

Numbers: 2 4 8 20
Answer: (20 - 8) * 4 / 2 = 24

"""

VALUE = """\
Can all the numbers, each used exactly once, still make 24 by + - * /? Or is the answer given \
right? Say sure, likely or impossible.

Numbers: 3 8
Verdict: sure

Numbers: 2 17
Verdict: impossible

Numbers: 2 5 14
Verdict: sure

Numbers: 5 6 8 16
Verdict: likely

Numbers: 15 16 17
Verdict: impossible

Numbers: 1 3 8 14
Answer: (14 - 8) * (1 + 3) = 24
Verdict: sure

Numbers: 6 7 9
Verdict: likely

Numbers: 1 3 8 14
Answer: 3 * 8 = 24
Verdict: impossible

Numbers: 9 15
Verdict: sure

Numbers: 2 3 15 18
Answer: 2 * 15 - (18 - 3) = 15
Verdict: impossible

"""

JUDGE = """\
Can all the numbers, each used exactly once, still make 24 by + - * /? Or is the answer given \
right? Say yes or no.

Numbers: 4 20
Makes 24: yes

Numbers: 5 16
Makes 24: no

Numbers: 1 3 8 14
Answer: (14 - 8) * (1 + 3) = 24
Makes 24: yes

Numbers: 3 7 18
Makes 24: no

Numbers: 1 3 8 14
Answer: 3 * 8 = 24
Makes 24: no

Numbers: 2 4 16
Makes 24: yes

Numbers: 2 3 15 18
Answer: 2 * 15 - (18 - 3) = 15
Makes 24: no

Numbers: 1 5 9 14
Answer: 5 * (14 - 9) - 1 = 24
Makes 24: yes

"""

VOTE = """\
Which option is best for making 24 by + - * / with each of its numbers used exactly once? A right \
answer is best of all.

Option 1: 15 16 17
Option 2: 3 8
Option 3: 1 2 4
Best option: 2

Option 1: 2 5 14
Option 2: 2 17
Best option: 1

Option 1: 11 12
Option 2: 16 18
Option 3: (14 - 8) * (1 + 3) = 24
Best option: 3

"""

REFLECT = """\
These attempts to make 24 failed. Say in one short line what to do otherwise.

Numbers: 1 5 9 14
Step: 5 * 9 = 45 (left: 1 14 45)
Step: 45 - 14 = 31 (left: 1 31)
Step: 31 - 1 = 30 (left: 30)
Answer: ((5 * 9) - 14) - 1 = 30
Lesson: 5 * 9 is too large; begin with 14 - 9 = 5.

Numbers: 2 3 15 18
Step: 15 + 18 = 33 (left: 2 3 33)
Step: 33 - 3 = 30 (left: 2 30)
Step: 30 / 2 = 15 (left: 15)
Answer: ((15 + 18) - 3) / 2 = 15
Lesson: Do not add 15 and 18; make 30 of 2 and 15, and 6 of 18 and 3.

"""


FEEDBACK = """\
Does the answer make 24 by + - * / and use each number exactly once? Say correct, or in one short \
line what is wrong.

Numbers: 1 5 9 14
Answer: 5 * (14 - 9) - 1 = 24
Feedback: correct

Numbers: 1 3 8 14
Answer: 3 * 8 = 24
Feedback: wrong, 1 and 14 are not used

Numbers: 2 3 15 18
Answer: 2 * 15 - (18 - 3) = 24
Feedback: wrong, it makes 30 - 15 = 15

"""

REFINE = """\
Make 24 from the numbers by + - * / and parentheses. Use each number exactly once. Mend what the \
feedback finds wrong.

Numbers: 1 3 8 14
Answer: 3 * 8 = 24
Feedback: wrong, 1 and 14 are not used
Answer: (14 - 8) * (1 + 3) = 24

Numbers: 2 3 15 18
Answer: 2 * 15 - (18 - 3) = 24
Feedback: wrong, it makes 30 - 15 = 15
Answer: 2 * 15 - 18 / 3 = 24

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
    is_target_shown=False,
)
