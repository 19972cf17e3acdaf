"""A task in which any text is a step, so a single token that differs shows in the tree."""

from dataclasses import dataclass, field

from treeshare.tasks.task import Problem, Step


@dataclass(frozen=True)
class Babble:
    temperature: float
    name: str = "babble"
    values: dict[str, float] = field(default_factory=lambda: {" good": 1.0, " bad": 0.0})

    @property
    def sampling(self):
        return {
            "step": {"max_tokens": 5, "temperature": self.temperature},
            "value": {"max_tokens": 2, "temperature": self.temperature},
        }

    def problems(self):
        return [Problem(str(i), f"{i:02}") for i in range(32)]

    def root(self, problem):
        return (problem.data,)

    def prompt(self, role, state):
        return (f"some shared text for {role}: ", "; ".join(state))

    def parse(self, role, state, text):
        return [Step(text, (*state, text))]

    def parse_value(self, state, text):
        return sum(text.encode()) % 101 / 100

    def moves(self, state):
        return [Step(text, (*state, text)) for text in (" up", " down", " upper", " left")]

    def solution(self, state):
        return state

    def is_terminal(self, state):
        return len(state) == 4

    def answer(self, state):
        return state[-1]
