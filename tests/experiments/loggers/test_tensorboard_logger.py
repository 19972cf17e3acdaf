"""The TensorBoard logger: its event files are read back by TensorBoard's own reader."""

import pytest
from logged_points import expected_points

from treeshare.experiments.loggers.tensorboard_logger import TensorBoardLogger

accumulators = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="needs the extra `tensorboard`",
)
LOGGER = {"_target_": "treeshare.experiments.loggers.tensorboard_logger.TensorBoardLogger"}
FAILED_GAME = "1 5 7 8"  # the third of the three puzzles


def points(folder):
    """Metric -> its points, as (step, value)."""
    reader = accumulators.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    tags = reader.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in tags}


def test_resumed_and_finished_runs_have_each_point_once(run_logged, run_directory, disk_rows):
    run_logged(LOGGER, refused=FAILED_GAME)
    folder = run_directory() / "tensorboard"
    assert points(folder)["failed"] == [(1, 0), (2, 0), (2, 1)]
    for _ in range(2):  # resumed, then finished
        run_logged(LOGGER)
        logged = points(folder)
        final = {name: logged.pop(name) for name in list(logged) if name.startswith("final/")}
        assert logged == expected_points(*disk_rows())
        assert final["final/puzzles"] == [(0, 3)]
        assert {name.removeprefix("final/") for name in final} <= set(logged)


def test_config_is_in_the_tab_hparams(run_logged, run_directory):
    run_logged(LOGGER)
    reader = accumulators.EventAccumulator(str(run_directory() / "tensorboard"))
    reader.Reload()
    summary = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"search._target_" in summary and b"treeshare.search.IO" in summary
    assert {"title/text_summary", "config/text_summary"} <= set(reader.Tags()["tensors"])


def test_other_folder(run_logged, run_directory, tmp_path):
    run_logged(LOGGER | {"dir": str(tmp_path / "board")})
    assert len(points(tmp_path / "board" / run_directory().name)["top1"]) == 3
    assert not (run_directory() / "tensorboard").exists()


def test_interrupted_run_is_closed(tmp_path):
    logger = TensorBoardLogger()
    logger.start(tmp_path, "title", {})
    logger.finish(None)
    logger.finish(None)
    assert points(tmp_path / "tensorboard") == {}
