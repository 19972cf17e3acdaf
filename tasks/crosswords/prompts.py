"""The words of the mini crosswords: per role, the part of the prompt that all games share.

After Tree of Thoughts (arXiv 2305.10601 section 4.3), in our own words and with squares of our own.
"""

from __future__ import annotations

PROPOSE = """\
Fill in a crossword of five by five letters. h1 to h5 are its rows, v1 to v5 its columns; an open \
letter is _. List words that answer a clue and fit its letters, one a line, the surest first.

h1. A smell: scent
h2. A light, narrow boat: ca___
h3. Setting fire to a house: ar___
h4. To wake: ro___
h5. Many ships: f____
v1. Worn round the neck: scarf
v2. A song for Christmas: caro_
v3. To follow: e____
v4. A loop in a rope: n____
v5. A belief held to be true: t____
Words:
v2. carol
h2. canoe
h3. arson
h5. fleet

h1. It pumps the blood: _____
h2. A glowing coal: _____
h3. To treat badly: _____
h4. Sticky stuff of pines: _____
h5. A general direction: _____
v1. The middle of something: _____
v2. What is left of a fire: _____
v3. To misuse: _____
v4. Amber was it once: _____
v5. A fashion: _____
Words:
h1. heart
h4. resin
v3. abuse

"""

STEPS = """\
Fill in a crossword of five by five letters, word by word. h1 to h5 are its rows, v1 to v5 its \
columns. At the end write the five rows.

h1. A smell
h2. A light, narrow boat
h3. Setting fire to a house
h4. To wake
h5. Many ships
v1. Worn round the neck
v2. A song for Christmas
v3. To follow
v4. A loop in a rope
v5. A belief held to be true
Words:
h2. canoe
v1. scarf
h3. arson
v4. noose
h1. scent
h5. fleet
h4. rouse
Rows: scent canoe arson rouse fleet

"""

SOLVE = """\
Fill in a crossword of five by five letters. h1 to h5 are its rows, v1 to v5 its columns; an open \
letter is _. Write the five rows.

h1. A smell: _____
h2. A light, narrow boat: _____
h3. Setting fire to a house: _____
h4. To wake: _____
h5. Many ships: _____
v1. Worn round the neck: _____
v2. A song for Christmas: _____
v3. To follow: _____
v4. A loop in a rope: _____
v5. A belief held to be true: _____
Rows: scent canoe arson rouse fleet

h1. It pumps the blood: heart
h2. A glowing coal: _____
h3. To treat badly: _____
h4. Sticky stuff of pines: _____
h5. A general direction: _____
v1. The middle of something: h____
v2. What is left of a fire: e____
v3. To misuse: a____
v4. Amber was it once: r____
v5. A fashion: t____
Rows: heart ember abuse resin trend

"""

# Two unfinished squares to judge.
_RIGHT = """\
h1. A smell: scent
h2. A light, narrow boat: canoe
h3. Setting fire to a house: ar___
h4. To wake: ro___
h5. Many ships: fl___
v1. Worn round the neck: scarf
v2. A song for Christmas: carol
v3. To follow: en___
v4. A loop in a rope: no___
v5. A belief held to be true: te___
"""
_WRONG = """\
h1. It pumps the blood: _____
h2. A glowing coal: coals
h3. To treat badly: _____
h4. Sticky stuff of pines: _____
h5. A general direction: _____
v1. The middle of something: _c___
v2. What is left of a fire: _o___
v3. To misuse: _a___
v4. Amber was it once: _l___
v5. A fashion: _s___
"""

VALUE = f"""\
Every row and column of this crossword must become a word that answers its clue; an open letter is \
_. Can it still be filled in? Say sure, maybe or impossible.

{_RIGHT}Verdict: sure

{_WRONG}Verdict: impossible

h1. It pumps the blood: _____
h2. A glowing coal: _____
h3. To treat badly: _____
h4. Sticky stuff of pines: resin
h5. A general direction: _____
v1. The middle of something: ___r_
v2. What is left of a fire: ___e_
v3. To misuse: ___s_
v4. Amber was it once: ___i_
v5. A fashion: ___n_
Verdict: maybe

"""

JUDGE = f"""\
Every row and column of this crossword must become a word that answers its clue; an open letter is \
_. Is all that is filled in right? Say yes or no.

{_RIGHT}Right: yes

{_WRONG}Right: no

"""
