"""The verifier that belongs to a task, found from outside of the task.

A task holds no reference to its verifier: a search can reach its task, and must not reach the
right answers through it. `verifier_of` is therefore a function apart from the tasks, and
`treeshare.search` does not import this module (`tests/test_layering.py` checks that).
"""

from __future__ import annotations

from functools import singledispatch

from .task import Task, Verifier


@singledispatch
def verifier_of(task: Task) -> Verifier:
    """Make the verifier of a task, with the parameters that fit the task's own.

    It is a `functools.singledispatch` function: each task's module registers one function for its
    class, and subclasses inherit it. A user's task joins in the same way:

        @verifier_of.register
        def _make_verifier(task: MyTask) -> Verifier:
            return MyVerifier(task.path)

    Args:
        task: any task of this package, or one whose class was registered.

    Returns:
        A new verifier.

    Raises:
        TypeError: no function is registered for the task's class.
        Exception: whatever the verifier's class raises for its arguments.
    """
    raise TypeError(
        f"task={type(task).__name__} has no registered verifier: pass one as verifier=..., or "
        "register a function with treeshare.tasks.verifier_of.register"
    )
