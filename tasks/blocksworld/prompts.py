"""The words of Blocksworld: per role, the part of the prompt that is the same for all puzzles.

Every example has blocks with names from P on, so none can be a puzzle.
"""

from __future__ import annotations

_RULES = """\
Blocks stand in stacks, written from the lowest to the top block: P Q | R is Q on P, and R beside \
them. A move takes the top block of a stack and puts it onto the top of another, or on the table.\
"""

PROPOSE = f"""\
{_RULES} List good next moves towards the goal, one a line, the best first.

Goal: P Q R
Blocks: P R | Q
Moves:
move R to the table
move Q onto R

Goal: P | Q S R
Blocks: P R | Q S
Moves:
move R onto S

"""

STEPS = f"""\
{_RULES} Reach the goal step by step, then write the whole plan.

Goal: P Q R
Blocks: P R | Q
Step: move R to the table (now: P | Q | R)
Step: move Q onto P (now: P Q | R)
Step: move R onto Q (now: P Q R)
Plan: move R to the table; move Q onto P; move R onto Q

Goal: P | Q S R
Blocks: P R | Q S
Step: move R onto S (now: P | Q S R)
Plan: move R onto S

Goal: R Q | S P
Blocks: P Q R | S
Step: move R to the table (now: P Q | R | S)
Step: move Q onto R (now: P | R Q | S)
Step: move P onto S (now: R Q | S P)
Plan: move R to the table; move Q onto R; move P onto S

"""

SOLVE = f"""\
{_RULES} Write the moves to the goal.

Goal: P Q R
Blocks: P R | Q
Plan: move R to the table; move Q onto P; move R onto Q

Goal: P | Q S R
Blocks: P R | Q S
Plan: move R onto S

Goal: R Q | S P
Blocks: P Q R | S
Plan: move R to the table; move Q onto R; move P onto S

"""

VALUE = f"""\
{_RULES} Are these blocks on a short way to the goal? Or is the plan given right? Say sure, likely \
or impossible.

Goal: P Q R
Blocks: P Q | R
Verdict: sure

Goal: P Q R
Blocks: R Q P
Verdict: likely

Goal: P | Q S R
Blocks: P R | Q S
Plan: move R onto S
Verdict: sure

Goal: P Q R
Blocks: P R | Q
Plan: move Q onto P; move R onto Q
Verdict: impossible

"""

JUDGE = f"""\
{_RULES} Are these blocks on a short way to the goal? Or is the plan given right? Say yes or no.

Goal: P Q R
Blocks: P Q | R
On the way: yes

Goal: P Q R
Blocks: Q R P
On the way: no

Goal: P | Q S R
Blocks: P R | Q S
Plan: move R onto S
On the way: yes

Goal: P Q R
Blocks: P R | Q
Plan: move Q onto P; move R onto Q
On the way: no

"""
