"""What each task's configuration needs besides its name, to run with a default search."""

LISTS = ["expander=sample", "evaluator=heuristic"]

TASK_OPTIONS = {
    "game24": [],
    "countdown": [],
    "sorting": LISTS,
    "set_intersection": LISTS,
}
