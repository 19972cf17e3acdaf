"""A task with the mandatory members only: one step leads to an answer, which is its text."""

from treeshare.tasks.task import Problem, Step


class Bare:
    name = "bare"

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.sampling = {"io": {}}

    def problems(self):
        return [Problem(f"bare/{i}", i) for i in range(self.size)]

    def root(self, problem):
        return ""

    def prompt(self, role, state):
        return (f"{role}: {state}",)

    def parse(self, role, state, text):
        return [Step(text, text)]

    def is_terminal(self, state):
        return state != ""

    def answer(self, state):
        return state


class Likely:
    """Accepts the answer `likely` for every problem."""

    def check(self, problem, answer):
        return answer == "likely"

    def promise(self, problem, state):
        return 1.0
