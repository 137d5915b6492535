"""Reports of one evaluation: what they say, what they refuse, and that they hold everything they need."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_folders import write_classes, write_picking
from sklearn.metrics import auc

from evaluation import report
from evaluation.figures import calibration, residuals, roc, waveforms
from evaluation.reporting import folder, words
from evaluation.reporting.page import inert
from utils import cli
from utils.errors import ConfigError, DataError


class Outline(HTMLParser):
    """Elements, their attributes, and the text a person sees."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.inside, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.inside):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def picking(tmp_path_factory):
    return write_picking(tmp_path_factory.mktemp("picker") / "evaluation" / "regional")


@pytest.fixture(scope="module")
def outline(picking):
    return Outline(report.write(picking).read_text())


def test_every_protocol_has_its_section_and_every_figure_a_description(outline):
    titles = {"Detection", "Identification", "Onset", "Stability", "Calibration", "Records", "Worst cases", "Provenance"}
    assert all(f"\n{title}\n" in outline.text or title in outline.text for title in titles)
    plots = [attrs for attrs in outline.all("div") if "data-spec" in attrs]
    assert len(plots) == 12  # two ROC, one confusion, two of residuals, one calibration, three and three windows
    assert all(len(attrs["aria-label"]) > 30 and attrs["role"] == "img" for attrs in plots)
    assert len(outline.all("caption")) == len(outline.all("table")) > 5
    assert all(attrs["scope"] in ("row", "col") for attrs in outline.all("th"))


def test_the_file_asks_the_network_for_nothing(outline):
    assert not [attrs for attrs in outline.all("script") if "src" in attrs]
    assert not [attrs for _, attrs in outline.elements if re.match(r"https?:|//", attrs.get("href") or attrs.get("src") or "")]
    (policy,) = [attrs["content"] for attrs in outline.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_undefined_figures_say_why_and_nothing_is_nan(outline):
    assert "undefined: all windows are earthquakes" in outline.text
    assert "undefined: no S is labelled" in outline.text
    assert not re.search(r"\bnan\b", outline.text, re.IGNORECASE)
    assert len(re.findall("undefined: no S is labelled", outline.text)) >= 5
    assert re.search(r"7 of \d+ test figures are undefined", outline.text)


def test_the_file_is_small_enough_to_mail(picking, outline):
    assert (picking / report.REPORT).stat().st_size < 8e6
    assert not list(picking.glob("*.new"))


def test_synthetic_data_are_called_synthetic(tmp_path):
    where = write_picking(tmp_path / "a", rows=30, examples=1, training_sets=["synthetic"])
    table = pd.read_csv(where / "metrics.csv")
    table["source"] = table["source"].replace("ncedc", "synthetic")
    table.to_csv(where / "metrics.csv", index=False)
    text = Outline(report.write(where).read_text()).text
    assert "Evaluated on synthetic data (synthetic): a simulation, not the Earth." in text
    assert "Trained on synthetic data" in text


def test_classifiers_get_their_confusion(tmp_path):
    text = Outline(report.write(write_classes(tmp_path / "b")).read_text()).text
    assert "Event classification: fore_aftershock/finetune_xlstm_unet / run0" in text
    assert "Who is taken for whom" in text
    assert "Evaluated on synthetic data (foreshock_synthetic)" in text


def test_texts_of_the_data_cannot_become_markup(tmp_path):
    where = write_picking(tmp_path / "a", rows=30, examples=1, init="</script><img src=x onerror=alert(1)>")
    with np.load(where / "examples.npz") as file:
        arrays = dict(file)
    arrays["trace_name"] = np.array(["</script><b>", "<!--"])
    np.savez(where / "examples.npz", **arrays)
    html = report.write(where).read_text()
    assert "<img src=x" not in html
    assert "</script><b>" not in html
    figure = roc.draw([], yes="</script>", no="<!--")
    assert "<" not in inert(figure)
    assert json.loads(inert(figure))["layout"]["xaxis"]["title"]["text"] == "share of <!-- windows claimed"


def damage(where, change):
    match change:
        case "no metrics":
            (where / "metrics.csv").unlink()
        case "no rows":
            (where / "metrics.csv").write_text((where / "metrics.csv").read_text().splitlines()[0] + "\n")
        case "no column":
            pd.read_csv(where / "metrics.csv").drop(columns=["low", "note"]).to_csv(where / "metrics.csv", index=False)
        case "no number":
            pd.read_csv(where / "metrics.csv").astype({"value": object}).replace({"value": {0.93: "good"}}).to_csv(
                where / "metrics.csv"
            )
        case "no seed":
            (where / "run.json").write_text('{"experiment_name": "a", "run_id": "b"}')
        case "no json":
            (where / "run.json").write_text("{")
        case "no scores":
            next(where.glob("pred/**/test_task1.csv")).write_text("trace_name,trace_type\na,noise\n")
        case "two runs":
            (where / "pred" / "other").mkdir()
            (where / "pred" / "other" / "test_task1.csv").write_text("")
        case "no waves":
            np.savez(where / "examples.npz", wave=np.zeros((1, 3, 8)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no metrics", "no metrics.csv in it (it holds calibration.csv"),
        ("no rows", "has no rows"),
        ("no column", "no column low, note; it has protocol, split"),
        ("no number", "value = 'good' in line 3 is no number"),
        ("no seed", "does not say seed"),
        ("no json", "run.json cannot be read"),
        (
            "no scores",
            "test_task1.csv: no column sampling_rate, start_sample, end_sample, source, event, score_detection; it has",
        ),
        ("two runs", "predictions of different runs"),
        ("no waves", "holds no probabilities, onsets"),
    ],
)
def test_what_is_no_evaluation_is_refused_with_the_command_that_makes_one(tmp_path, change, said):
    where = write_picking(tmp_path / "a", rows=12, examples=1)
    damage(where, change)
    with pytest.raises(DataError) as caught:
        report.write(where)
    assert said in str(caught.value)
    assert "python -m evaluation.run checkpoint=" in str(caught.value)
    assert not (where / report.REPORT).exists()


def test_the_command_finds_evaluations_below_run_folders(tmp_path, capsys):
    write_picking(tmp_path / "runs" / "x" / "one" / "evaluation" / "regional", rows=30, examples=1)
    report.main(cli.parse(report.Arguments, [str(tmp_path / "runs")], where="evaluation.report", words="runs"))
    assert "regional/report.html" in capsys.readouterr().out
    with pytest.raises(DataError, match="no evaluation in it"):
        folder.find([tmp_path / "runs" / "x" / "one" / "evaluation" / "regional" / "pred"])
    with pytest.raises(ConfigError, match="name at least one run folder"):
        cli.parse(report.Arguments, [], where="evaluation.report", words="runs")


@given(st.integers(0, 10_000), st.integers(4, 300))
@settings(deadline=None, max_examples=25)
def test_a_roc_curve_is_honest(seed, size):
    rng = np.random.default_rng(seed)
    truth = rng.random(size) < 0.5
    score = np.where(rng.random(size) < 0.1, np.inf, rng.normal(size=size) + truth)
    made = roc.curve(roc.Scored("a", truth, score), 0.5)
    if truth.all() or not truth.any():
        assert "of one class" in made
        return
    pairs = (score[truth][:, None] > score[~truth]) + 0.5 * (score[truth][:, None] == score[~truth])
    assert made.area == pytest.approx(pairs.mean())  # Mann and Whitney's statistic
    assert auc(made.false, made.true) == pytest.approx(made.area)
    assert made.point == ((score[~truth] >= 0.5).mean(), (score[truth] >= 0.5).mean())


def test_a_histogram_loses_no_pick():
    late = np.array([-9.0, -1.6, -1.5, -0.02, 0.0, 0.02, 1.5, 1.51, 40.0, np.nan])
    bars = residuals.histogram({"P": late}).data[0]
    assert sum(bars.y) + sum(residuals.outside(late)) + np.isnan(late).sum() == len(late)
    assert residuals.outside(late) == (2, 2)
    assert bars.y[np.argmin(np.abs(bars.x))] == 3


def test_calibration_error_by_hand():
    bins = calibration.Bins(np.array([0.1, 0.9, 0.5]), np.array([0.2, 0.5, np.nan]), np.array([30, 10, 0]))
    assert calibration.error(bins) == pytest.approx((30 * 0.1 + 10 * 0.4) / 40)
    assert np.isnan(calibration.error(calibration.Bins(*(values[2:] for values in bins))))


def bump(places, height=0.9, samples=3000):
    time = np.arange(samples)
    chance = np.zeros((samples, 3))
    for phase, place in places:
        chance[:, phase] += height * np.exp(-((time - place) ** 2) / 200)
    chance[:, 2] = 1 - chance[:, :2].sum(1)
    return chance


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([(0, 500), (1, 1230)], ["P picked on time", "S picked 0.30 s late"]),
        ([(0, 470)], ["P picked 0.30 s early", "S at 12.0 s missed: its probability reaches 0.00 there"]),
        ([(1, 505), (1, 1200)], ["P taken for S", "S picked on time"]),
        (
            [(0, 500), (0, 2500), (1, 1200)],
            ["P picked on time", "S picked on time", "P picked at 25.0 s (0.90) where none is labelled"],
        ),
    ],
)
def test_verdicts_say_what_went_wrong(places, said):
    chance = bump(places)
    truth = waveforms.arrivals(np.array([1200, 500, -1]), np.array([1, 0, 0]), 100.0)
    assert waveforms.verdict(truth, waveforms.picks(chance, {}, 100.0), chance, 100.0) == said


def test_a_pick_of_a_phase_that_nobody_looked_for_is_no_mistake(tmp_path):
    folder = write_picking(tmp_path / "run", examples=1, rows=30)
    with np.load(folder / "examples.npz") as file:
        arrays = dict(file)
    late = arrays["phases"] == 1
    arrays["phases"], arrays["onsets"] = np.where(late, -1, arrays["phases"]), np.where(late, -1, arrays["onsets"])
    for known, said in ((True, "where none is labelled"), (False, "where nobody looked for S")):
        np.savez(folder / "examples.npz", **arrays, known=np.array([[True, known]] * len(late)))
        assert said in report.write(folder).read_text()


def test_picks_at_the_very_edge_and_above_their_threshold_only():
    chance = bump([(0, 0), (0, 400)]) * np.array([0.5, 1, 1])
    assert [pick.time for pick in waveforms.picks(chance, {"P": 0.4}, 100.0)] == [0.0, 4.0]
    assert waveforms.picks(chance, {"P": 0.6}, 100.0) == []


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("within_0.1", 0.8954, "89.5 %"),
        ("share_within_0.5_s", 1.0, "100.0 %"),
        ("mean", -0.01, "−0.010 s"),
        ("mcc", 0.5, "0.500"),
    ],
)
def test_numbers_read_the_same_everywhere(name, value, told):
    assert words.written(value, words.metric(name).unit) == told
    with pytest.raises(ValueError, match="cannot be written"):
        words.written(float("nan"), words.metric(name).unit)
