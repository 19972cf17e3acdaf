"""What a run is, as meta.json holds it, or as version 0.1.0 left it."""

import json
from dataclasses import asdict, replace

import pytest
import yaml

from treeshare.experiments.results.meta import RunMeta, read_meta

META = RunMeta(
    task="game24",
    name="tot_bfs",
    model="tiny",
    identity={"task": {"_target_": "treeshare.tasks.Game24"}, "seed": 3},
    digests={"engine.model.name": {"config.json": "ab"}},
    sources={"my_policies.py": "12", "Mine": "3.11 34"},
    defaults={"search.breadth": 5},
)


def test_what_was_written_is_read(tmp_path):
    (tmp_path / "meta.json").write_text(json.dumps(asdict(META) | {"began": "now", "more": 1}))
    assert read_meta(tmp_path) == META


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layout": 3}, r"meta\.json has layout=3; this version reads 2"),
        ({"task": 1}, r"meta\.json: task is not of type str"),
        ({"identity": []}, r"meta\.json: identity is not of type dict"),
        ({"sources": None}, r"meta\.json: sources is not of type dict"),
    ],
)
def test_other_contents_are_refused(change, said, tmp_path):
    (tmp_path / "meta.json").write_text(json.dumps(asdict(META) | change))
    with pytest.raises(ValueError, match=said):
        read_meta(tmp_path)


def test_a_huge_file_is_not_read(tmp_path):
    (tmp_path / "meta.json").write_text('"' + "x" * 2**23 + '"')
    with pytest.raises(ValueError, match=r"meta\.json has more than 4,194,304 bytes"):
        read_meta(tmp_path)


@pytest.mark.parametrize("about", [None, {"digests": {"problems": {"all": "0"}}}, {"digests": 1}])
def test_a_run_of_the_first_layout_is_read_from_its_path_and_configuration(about, tmp_path):
    directory = tmp_path / "game24/tot_bfs/tiny/0123456789-seed3"
    directory.mkdir(parents=True)
    config = {
        "seed": 3,
        "answers": 5,
        "search": {"_target_": "treeshare.search.ToTBFS", "breadth": 5},
        "classifier": {"name": "org/reward"},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    if about is not None:
        (directory / "meta.json").write_text(json.dumps(about))
    meta = read_meta(directory)
    assert (meta.task, meta.name, meta.model, meta.layout) == ("game24", "tot_bfs", "tiny", 1)
    assert meta.identity == {
        "search": config["search"],
        "reward_model": config["classifier"],
        "seed": 3,
    }


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.yaml is not a file"):
        read_meta(tmp_path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sources": {"my_policies.py": "13", "Mine": "3.11 34"}}, "my_policies.py"),
        ({"sources": {"Mine": "3.11 35"}}, "Mine"),
        ({"defaults": {"search.breadth": 6}}, "the default of search.breadth"),
        ({"identity": {"task": {"_target_": "mine.Task"}, "seed": 3}}, "task"),
    ],
)
def test_a_run_of_which_something_has_changed_is_refused(change, what):
    with pytest.raises(ValueError) as info:
        replace(META, **change).check(META)
    assert str(info.value) == (
        f"{what} has changed since this run began: overwrite=true starts it again, "
        "name=... keeps both"
    )


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"sources": {"helpers.py": "1"}},  # its import is seen by the change of the importing file
        {"sources": {"Mine": "3.12 99"}},  # compiled by another Python
        {"defaults": {"search.depth": None}},
        {"task": "other", "digests": {}},
    ],
)
def test_what_only_one_side_has_is_not_compared(change):
    replace(META, **change).check(META)


def test_a_run_of_the_first_layout_is_not_compared():
    META.check(RunMeta("", "", "", {"search": {}}, layout=1))


def test_the_seeds_of_a_run_share_the_first_part_of_its_id():
    other = replace(META, identity=META.identity | {"seed": 4})
    assert META.run_id.split("-seed") == [other.run_id.split("-seed")[0], "3"]
    assert len(META.run_id.split("-")[0]) == 10
