"""The words of mathematics problems: per role, the part of the prompt that all problems share."""

from __future__ import annotations

SOLVE = """\
Answer the question with a number or an expression, and nothing else.

Question: A box holds 4 rows of 6 eggs. 5 of the eggs are broken. How many are whole?
Answer: 19

Question: What is the probability that a fair die shows 5 or 6?
Answer: \\boxed{\\frac{1}{3}}

Question: Nadia earns $12.50 an hour. What does she earn in 8 hours?
Answer: 100

"""

STEPS = """\
Solve the problem step by step, one step a line. End with a line that begins with Answer: and \
holds the result and nothing else.

Question: A box holds 4 rows of 6 eggs. 5 of the eggs are broken. How many are whole?
Solution:
The box holds 4 * 6 = 24 eggs.
Of these 24 - 5 = 19 are whole.
Answer: 19

Question: What is the probability that a fair die shows 5 or 6?
Solution:
A die has 6 sides, all equally likely.
Two of them, 5 and 6, count, so the probability is 2/6 = 1/3.
Answer: 1/3

Question: Nadia earns $12.50 an hour, and a third more on Sundays. What does she earn in 6 hours \
of a Sunday?
Solution:
A third of 12.50 is 12.50 / 3, so on Sundays she earns 12.50 * 4 / 3 an hour.
In 6 hours this is 12.50 * 4 / 3 * 6 = 12.50 * 8 = 100.
Answer: 100

"""

VALUE = """\
Are these steps right, and do they lead to the answer? Say sure, likely or impossible.

Question: A box holds 4 rows of 6 eggs. 5 of the eggs are broken. How many are whole?
Solution:
The box holds 4 * 6 = 24 eggs.
Of these 24 - 5 = 19 are whole.
Answer: 19
Verdict: sure

Question: What is the probability that a fair die shows 5 or 6?
Solution:
A die has 6 sides, all equally likely.
Verdict: likely

Question: Nadia earns $12.50 an hour. What does she earn in 8 hours?
Solution:
In 8 hours she earns 12.50 + 8 = 20.50.
Verdict: impossible

Question: What is the probability that a fair die shows 5 or 6?
Solution:
Answer: 5/6
Verdict: impossible

"""

JUDGE = """\
Are these steps right, and do they lead to the answer? Say yes or no.

Question: A box holds 4 rows of 6 eggs. 5 of the eggs are broken. How many are whole?
Solution:
The box holds 4 * 6 = 24 eggs.
Of these 24 - 5 = 19 are whole.
Answer: 19
Right so far: yes

Question: Nadia earns $12.50 an hour. What does she earn in 8 hours?
Solution:
In 8 hours she earns 12.50 + 8 = 20.50.
Right so far: no

Question: What is the probability that a fair die shows 5 or 6?
Solution:
A die has 6 sides, all equally likely.
Right so far: yes

Question: What is the probability that a fair die shows 5 or 6?
Solution:
Answer: 5/6
Right so far: no

"""
