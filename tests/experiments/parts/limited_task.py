"""The bare task with a parameter `limit`."""

from bare_task import Bare


class Limited(Bare):
    def __init__(self, limit: int = 2) -> None:
        super().__init__(limit)
