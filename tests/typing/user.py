"""A user's file, which `make check` gives to mypy from this folder: the package's types are found.

The unused-ignore check of strict mode makes the last lines an assertion: the mistakes are seen.
"""

from typing import assert_type

import treeshare as ts
from treeshare.search import ToTBFS
from treeshare.tasks import Game24

assert_type(ts.__version__, str)
assert_type(ToTBFS(breadth=5).breadth, int)
with ts.load_engine("embedded") as engine:
    run = ts.solve(Game24(limit=1), engine=engine, policy=ToTBFS())
assert_type(run["game24/1-5-5-5"].is_right, bool)
assert_type(ts.tasks.Game24(limit=1).name, str)

ToTBFS(wdith=5)  # type: ignore[call-arg]
ts.solve(Game24(), engine=engine, policy="tot_bfs")  # type: ignore[arg-type]
ts.sovle  # type: ignore[attr-defined]  # noqa: B018
