"""Comparisons of runs: means over seeds, paired differences, label-fraction curves, training against evaluation sets."""

import math

import numpy as np
import pandas as pd
import pytest
from report_folders import write_classes, write_picking

from evaluation import report
from evaluation.bootstrap import Interval
from evaluation.reporting import comparing, comparison, pairs
from evaluation.reporting.folder import find, read
from evaluation.reporting.single import start
from utils import cli
from utils.errors import ConfigError, DataError


def study(root, *, shares=(0.1, 1.0), seeds=(0, 1, 2), rows=90):
    """Scratch and pretrained runs at several shares of labels; pretrained ones pick better."""
    return [
        write_picking(
            root / f"{init}{share}{seed}", seed=seed, skill=skill * (0.5 + share / 2), rows=rows, examples=1, init=init,
            training_fraction=share, run_id=f"{init}-{share}-{seed}",
        )
        for init, skill in (("scratch", 0.5), ("pretrained", 2.0)) for share in shares for seed in seeds
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def compared(folders):
    return comparison.compare([read(folder) for folder in folders])


def test_means_and_spreads_are_those_of_the_runs(folders, compared):
    key = ("task3", "all", "P", "rmse")
    values = []
    for folder in folders[:3]:
        table = pd.read_csv(folder / "metrics.csv")
        row = table[(table[["protocol", "source", "phase", "metric"]] == list(key)).all(axis=1) & (table["split"] == "test")]
        values.append(row["value"].item())
    mean = compared.means[next(iter(compared.runs)), key]
    assert mean.mean == pytest.approx(np.mean(values))
    assert mean.spread == pytest.approx(pd.Series(values).std())
    assert (mean.low, mean.high) == (min(values), max(values))


def test_a_mean_over_the_runs_that_went_well_is_not_given(tmp_path):
    for seed in (0, 1):
        write_picking(tmp_path / str(seed), seed=seed, rows=30, examples=1)
    table = pd.read_csv(tmp_path / "1" / "metrics.csv")
    chosen = (table["metric"] == "rmse") & (table["source"] == "ncedc") & (table["phase"] == "P")
    table.loc[chosen, ["value", "note"]] = [np.nan, "undefined: no picks"]
    table.to_csv(tmp_path / "1" / "metrics.csv", index=False)
    made = comparison.compare([read(tmp_path / "0"), read(tmp_path / "1")])
    mean = made.means[next(iter(made.runs)), ("task3", "ncedc", "P", "rmse")]
    assert math.isnan(mean.mean)
    assert mean.undefined == ("undefined: no picks",)
    (line,) = [row for row in comparison.table(made) if (row["source"], row["phase"], row["metric"]) == ("ncedc", "P", "rmse")]
    assert (line["mean"], line["runs"], line["note"]) == ("", 2, "undefined: no picks")


def test_models_are_told_apart_by_what_differs(compared):
    assert list(compared.names().values()) == [
        "xlstm/small, scratch, 10 % of labels",
        "xlstm/small, scratch, 100 % of labels",
        "xlstm/small, pretrained, 10 % of labels",
        "xlstm/small, pretrained, 100 % of labels",
    ]


@pytest.mark.parametrize(
    ("init", "source", "said"),
    [
        ("scratch", None, "scratch"),
        ("pretrained", "/home/a/runs/contrastive/small/0312/checkpoints/last.ckpt", "pretrained (contrastive/small)"),
        ("pretrained, encoder frozen", "runs/reconstruction/small/7", "pretrained, encoder frozen (reconstruction/small)"),
        ("pretrained", "/data/foundation/best.ckpt", "pretrained (foundation)"),
    ],
)
def test_starts_name_what_was_pretrained(init, source, said):
    assert start({"init": init, "pretrained_from": source}) == said


def test_paired_differences_are_those_of_the_tables(folders, compared):
    scratch, better = list(compared.runs)[1], list(compared.runs)[3]
    found, apart = pairs.differences(compared, scratch)
    assert apart == []
    (item,) = [d for d in found if (d.model, d.metric, d.phase, d.source) == (better, "within_0.1", "P", "obst")]

    def share(folder):
        (file,) = folder.glob("pred/**/test_task23.csv")
        table = pd.read_csv(file)
        own = table[(table["phase_label"] == "P") & (table["source"] == "obst")]
        return ((own["p_sample_pred"] - own["phase_onset"]).abs() <= 10).mean()

    assert item.interval.value == pytest.approx(
        np.mean([share(f) for f in folders[9:12]]) - np.mean([share(f) for f in folders[3:6]])
    )
    assert item.interval.low < item.interval.value < item.interval.high
    assert len(pairs.ASKED) == len({(d.protocol, d.phase, d.metric) for d in found})


def test_a_model_does_not_differ_from_itself(tmp_path):
    for name in ("a", "b"):
        write_picking(tmp_path / name, rows=60, examples=1, experiment_name=name, run_id=name)
    made = comparison.compare([read(tmp_path / name) for name in ("a", "b")])
    found, _ = pairs.differences(made, next(iter(made.runs)))
    assert {(d.interval.value, d.interval.low, d.interval.high) for d in found} == {(0.0, 0.0, 0.0)}
    assert all(comparing._mark(d) == "·" for d in found)


def test_moments_are_compared_on_onsets_that_both_picked(tmp_path):
    """One that gives no pick where it would be far off would else have the better RMSE."""
    for name in ("a", "b"):
        write_picking(tmp_path / name, rows=60, examples=1, experiment_name=name, run_id=name)
    (file,) = (tmp_path / "b").glob("pred/**/test_task23.csv")
    table = pd.read_csv(file)
    far = (table["p_sample_pred"] - table["phase_onset"]).abs() > 20
    assert far.any()
    table.assign(p_sample_pred=table["p_sample_pred"].mask(far)).to_csv(file, index=False)
    made = comparison.compare([read(tmp_path / name) for name in ("a", "b")])
    found, _ = pairs.differences(made, next(iter(made.runs)))
    picked = {d.metric: d for d in found if (d.phase, d.source) == ("P", "all")}
    assert picked["rmse"].interval.value == picked["mae"].interval.value == 0
    left = int((far & (table["phase_label"] == "P")).sum())
    assert picked["rmse"].note == f"{left} windows without an answer in one of them left out"
    assert picked["within_0.5"].interval.value <= 0
    assert picked["within_0.5"].note == ""


def test_answers_to_other_questions_are_not_paired(tmp_path):
    write_picking(tmp_path / "a", rows=60, examples=1)
    write_picking(tmp_path / "b", rows=30, examples=1, experiment_name="other", run_id="b")
    made = comparison.compare([read(tmp_path / name) for name in ("a", "b")])
    found, apart = pairs.differences(made, next(iter(made.runs)))
    assert found == []
    assert len(apart) == 2
    assert "other on regional, test_task1: predictions cannot be paired: 60 and 30 rows" in apart[0]


@pytest.mark.parametrize(
    ("metric", "low", "high", "mark"),
    [
        ("within_0.1", 0.1, 0.2, "▲"),
        ("rmse", 0.1, 0.2, "▼"),
        ("rmse", -0.2, -0.1, "▲"),
        ("mcc", -0.1, 0.1, "·"),
        ("mcc", math.nan, math.nan, "·"),
    ],
)
def test_what_is_better_depends_on_the_figure(metric, low, high, mark):
    model = comparison.Model("a", "", "", 1.0)
    item = pairs.Difference(model, "task3", "all", "P", metric, Interval(0.15, low, high, 9, 9), "")
    assert comparing._mark(item) == mark


def test_curves_run_over_the_shares_of_labels(compared):
    panels = comparing.curves(compared)
    (panel,) = [panel for panel in panels if panel.title.startswith("Onset: P within 0.1 s")]
    assert [curve.name for curve in panel.curves] == ["xlstm/small, scratch", "xlstm/small, pretrained"]
    for curve in panel.curves:
        assert curve.fraction.tolist() == [0.1, 1.0]
        assert (curve.low <= curve.mean).all()
        assert (curve.mean <= curve.high).all()
    assert (panel.curves[1].mean > panel.curves[0].mean).all()


def test_matrices_hold_every_pair_that_was_run(tmp_path):
    for place, name in enumerate(("ETHZ", "STEAD")):
        write_picking(tmp_path / name, rows=40, examples=1, training_sets=[name], run_id=name, skill=1.0 + place)
    made = comparison.compare([read(tmp_path / name) for name in ("ETHZ", "STEAD")])
    panel = next(panel for panel in comparing.crossings(made) if panel.title.startswith("Onset: P RMSE"))
    assert (list(panel.rows), list(panel.columns)) == (["ETHZ", "STEAD"], ["ncedc", "obst"])
    table = pd.read_csv(tmp_path / "STEAD" / "metrics.csv")
    chosen = (table["metric"] == "rmse") & (table["source"] == "obst") & (table["phase"] == "P") & (table["split"] == "test")
    assert panel.values[1, 1] == pytest.approx(table.loc[chosen, "value"].item())
    assert panel.shade()[np.unravel_index(panel.values.argmin(), panel.values.shape)] == 1.0  # less is better: darkest


def test_the_command_writes_report_tables_and_pictures(folders, tmp_path, capsys):
    words = [
        *(str(folder) for folder in folders),
        f"output={tmp_path / 'out'}",
        "reference=xlstm/small, scratch, 100 % of labels",
    ]
    report.main(cli.parse(report.Arguments, words, where="evaluation.report", words="runs"))
    assert "12 evaluations compared" in capsys.readouterr().out
    out = tmp_path / "out"
    assert (out / "figures" / "models.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "figures" / "labels.png").is_file()
    table, differences = pd.read_csv(out / "comparison.csv"), pd.read_csv(out / "differences.csv")
    assert set(table["fraction"]) == {0.1, 1.0}
    assert set(table["runs"]) == {3}
    assert set(differences["reference"]) == {"xlstm/small, scratch, 100 % of labels"}
    assert len(set(differences["model"])) == 3
    html = (out / "report.html").read_text()
    assert "How many labels it takes" in html
    assert "undefined: no S is labelled" in html
    assert len(html) < 8e6


def test_classifiers_are_compared_over_seeds(tmp_path):
    folders = [write_classes(tmp_path / str(seed), seed=seed) for seed in range(3)]
    made = comparison.compare([read(folder) for folder in folders])
    (mean,) = [mean for (_, key), mean in made.means.items() if key[3] == "accuracy"]
    assert len(mean.values) == 3
    where = report.write_comparison(folders, tmp_path / "out")
    assert "Classification: accuracy, test." in where.read_text()
    with pytest.raises(DataError, match=r"classifies, .* picks: compare each kind by itself"):
        comparison.compare([read(folders[0]), read(write_picking(tmp_path / "p", rows=12, examples=1))])


def test_what_would_count_double_or_is_unknown_is_refused(tmp_path):
    for name in ("a", "b"):
        write_picking(tmp_path / name, rows=12, examples=1)
    with pytest.raises(DataError, match="evaluate the same run on all: give one of them"):
        comparison.compare([read(tmp_path / name) for name in ("a", "b")])
    write_picking(tmp_path / "c", rows=12, examples=1, experiment_name="baseline/phasenet", run_id="c")
    with pytest.raises(ConfigError, match=r"no model 'baseline/phasnet'. Did you mean 'baseline/phasenet'\?"):
        report.write_comparison([tmp_path / "a", tmp_path / "c"], tmp_path / "out", "baseline/phasnet")
    assert not (tmp_path / "out").exists()


def test_all_sources_of_two_data_sets_are_two_things(tmp_path):
    for place, name in enumerate(("regional", "synthetic")):
        write_picking(tmp_path / "run" / "evaluation" / name, rows=30, examples=1, dataset=[name], seed=place, run_id="one")
        table = pd.read_csv(tmp_path / "run" / "evaluation" / name / "metrics.csv")
        table["source"] = [source if source == "all" else f"{name}-{source}" for source in table["source"]]
        table.to_csv(tmp_path / "run" / "evaluation" / name / "metrics.csv", index=False)
    assert [folder.name for folder in find([tmp_path / "run"])] == ["regional", "synthetic"]
    made = comparison.compare([read(folder) for folder in find([tmp_path / "run"])])
    assert {key[1] for key in made.keys if key[1].startswith("all")} == {"all of regional", "all of synthetic"}


def test_a_run_on_two_data_sets_is_one_run_and_one_seed(tmp_path):
    sets = ["data/regional", "data/stead", "data/ethz"]
    made = [write_picking(tmp_path / name, dataset=[name], rows=30, examples=1) for name in sets]
    other = {"experiment_name": "baseline/ar_pick", "init": "untrained", "training_fraction": 0.0, "training_sets": []}
    made.append(write_picking(tmp_path / "classical", rows=30, examples=1, **other))
    for folder, source in zip(made, sets, strict=False):
        table = pd.read_csv(folder / "metrics.csv")
        table.assign(source=table["source"] + source).to_csv(folder / "metrics.csv", index=False)
    compared = comparison.compare([read(folder) for folder in made])
    page = comparing.page(compared, next(iter(compared.runs)), [], [])
    assert dict(page.facts) | {"runs": "2", "evaluations": "4"} == dict(page.facts)
    small, classical = ([cell.text for cell in row] for row in page.sections[0].blocks[0].rows)
    assert small[-2:] == ["1", "0"]
    assert classical[2:4] == ["nothing", "none"]
    (told,) = [text for text in page.caveats if "seeds" in text]
    assert told.startswith("Fewer than three seeds of xlstm/small:")
