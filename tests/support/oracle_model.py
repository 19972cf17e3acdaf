"""A scripted model that knows the answers, for searches whose evaluator is the oracle.

It is right in a share of its samples, and of its ratings of legal moves. So a search whose depth
and number of samples suit the task can solve nearly every puzzle.
"""

import random

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.tasks.arithmetic.rules import solve
from treeshare.tasks.crosswords.task import SLOTS, Board, read_games
from treeshare.tasks.task import HasMoves


def right_answer(setup, problem):
    """The right answer to a problem, as a model would write it."""
    task, state = setup.task, setup.task.root(problem)
    match task.name:
        case "game24" | "countdown":
            return solve(state).numbers[0].expression
        case "blocksworld":
            while not task.is_terminal(state):
                after = [move.state for move in task.moves(state)]
                state = next(s for s in after if setup.verifier.promise(problem, s))
            return task.answer(state)
        case "sorting":
            return str(sorted(problem.data))
        case "set_intersection":
            return str([n for n in problem.data.second if n in problem.data.first])
        case "crosswords":
            return str(_full_board(task, problem))
        case "math":
            return setup.verifier.right_answer(problem)
        case "reasoning_gym":  # chain_sum
            return str(eval(problem.data.partition(": ")[2].rstrip(" =")))


class OracleModel:
    """The replies and scores of a mock engine, for the roles `step`, `propose` and `choose`.

    Args:
        setup: the run whose problems the model knows.
        share: the share of right samples, and of moves to a solution that are rated best.
        length: the steps of a solution in words; all but the last are reasoning.
    """

    def __init__(self, setup, share=0.5, length=3):
        self.setup, self.share, self.length = setup, share, length
        self.engine = MockEngine(self._reply, self._score)
        roles = ["choose"] if isinstance(setup.task, HasMoves) else ["step", "propose"]
        self._roles = [role for role in roles if role in {*setup.task.sampling, "choose"}]
        self._known = {}  # by prompt: the role, the problem and the state
        self._moves = {}  # by prompt: the states after the moves, by text
        for problem in setup.problems:
            self._learn(problem, setup.task.root(problem))

    def _learn(self, problem, state):
        for role in self._roles:
            prompt = "".join(self.setup.task.prompt(role, state))
            self._known[prompt] = role, problem, state

    def _score(self, prompt, move):
        """Log-probability: -1 for the right moves in a share of cases, else random and lower."""
        _, problem, state = self._known[prompt]
        if prompt not in self._moves:
            self._moves[prompt] = {m.text: m.state for m in self.setup.task.moves(state)}
        after = self._moves[prompt][move]
        self._learn(problem, after)
        draw = random.Random(repr((prompt, move)))
        if draw.random() < self.share and self.setup.verifier.promise(problem, after):
            return -1.0
        return -1 - 10 * draw.random()

    def _reply(self, prompt, seed, k):
        role, problem, state = self._known[prompt]
        text = self._text(problem, state, random.Random(repr((prompt, seed, k))))
        steps = self.setup.task.parse(role, state, text)
        for step in steps if isinstance(steps, list) else []:
            self._learn(problem, step.state)
        return text

    def _text(self, problem, state, draw):
        is_right = draw.random() < self.share
        match self.setup.task.name:
            case "math":
                return self._line(problem, state.lines, is_right, draw, "Answer: {}")
            case "reasoning_gym":
                return self._line(problem, state.reasoning, is_right, draw, "So <answer>{}")
            case "sorting" | "set_intersection":
                right = right_answer(self.setup, problem)
                return right if is_right else right.replace(", ", f", {draw.randint(0, 9)}, ", 1)
            case "crosswords":
                return "\n".join(self._words(problem, state, draw))
        raise ValueError(self.setup.task.name)

    def _line(self, problem, lines, is_right, draw, answer):
        """The next line of reasoning, or the answer after the last right one."""
        if sum(line.startswith("Indeed") for line in lines) < self.length - 1:
            return f"{'Indeed' if is_right else 'Perhaps'} x is {draw.randint(1, 99)}."
        return answer.format(right_answer(self.setup, problem) if is_right else "123456")

    def _words(self, problem, board, draw):
        """Two lines for each open slot in random order, each a right word or a wrong one."""
        full = _full_board(self.setup.task, problem)
        slots = 2 * [slot for slot in SLOTS if "_" in board.word(slot)]
        for slot in draw.sample(slots, len(slots)):
            wrong = "".join(draw.choice("xz") if c == "_" else c for c in board.word(slot))
            yield f"{slot}. {full.word(slot) if draw.random() < self.share else wrong}"


def _full_board(task, problem):
    _, letters = read_games(task.path)[int(problem.id.rpartition("/")[2])]
    return Board(problem.data.clues, letters)
