"""Evaluation folders as evaluation.run leaves them, made of numbers whose truth is known."""

import json

import numpy as np
import pandas as pd

COLUMNS = ["protocol", "split", "source", "phase", "metric", "value", "low", "high", "n", "events", "note"]
SOURCES = ("ncedc", "obst")


def write_picking(folder, *, seed=0, skill=1.0, rows=120, examples=3, **run):
    """A picker's folder: P and S onsets scattered around the truth, less with more ``skill``."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    said = {
        "experiment_name": "xlstm/small",
        "run_id": f"run{seed}",
        "seed": seed,
        "training_sets": ["regional"],
        "dataset": ["data/regional"],
    }
    said |= {
        "training_fraction": 1.0,
        "init": "scratch",
        "checkpoint": "last.ckpt",
        "parameters": 276123,
        "versions": {"torch": "2.9"},
    }
    (folder / "run.json").write_text(json.dumps(said | run))
    asked = np.random.default_rng(99)  # the questions are the same for every seed, the answers are not
    tables = {
        f"{split}_task{task}": make(asked, rng, rows, skill)
        for task, make in (("1", task1), ("23", task23))
        for split in ("dev", "test")
    }
    place = folder / "pred" / "xlstm_small" / said["run_id"]
    place.mkdir(parents=True)
    for name, table in tables.items():
        table.to_csv(place / f"{name}.csv", index=False)
    metrics(tables, rng).to_csv(folder / "metrics.csv", index=False)
    (folder / "metrics.json").write_text("[]")
    (folder / "thresholds.json").write_text(
        json.dumps({"detection": 0.52, "p_or_s": 1.1, "p_or_s_mcc": 1.0, "P": 0.4, "S": 0.35})
    )
    calibration(rng).to_csv(folder / "calibration.csv", index=False)
    write_examples(folder / "examples.npz", rng, examples)
    return folder


def task1(asked, rng, rows, skill):
    quake = asked.random(rows) < 0.7
    score = 1 / (1 + np.exp(-(rng.normal(size=rows) + 2.5 * skill * (quake - 0.5))))
    return frame(rows).assign(trace_type=np.where(quake, "earthquake", "noise"), score_detection=score)


def task23(asked, rng, rows, skill):
    phase = np.where(np.arange(rows) % 2 == 0, "P", "S")
    onset = asked.integers(300, 700, rows)
    error = rng.laplace(scale=np.where(phase == "P", 5, 15) / skill, size=rows).round()
    error[rng.random(rows) < 0.05] += 300
    ratio = np.exp(rng.normal(size=rows) + 3 * skill * ((phase == "P") - 0.5))
    return frame(rows).assign(
        phase_label=phase, full_phase_label=phase + "g", phase_onset=onset, score_detection=0.9, score_p_or_s=ratio,
        p_sample_pred=onset + error, s_sample_pred=onset + error,
    )  # fmt: skip


def frame(rows):
    table = pd.DataFrame({"trace_name": [f"bucket{n}$0" for n in range(rows)], "trace_idx": range(rows), "trace_split": "test"})
    return table.assign(
        sampling_rate=100.0, start_sample=0, end_sample=1000, event=[f"e{n // 3}" for n in range(rows)],
        p_known=True, s_known=True, source=np.where(np.arange(rows) % 3 == 0, "obst", "ncedc"),
    )  # fmt: skip


def metrics(tables, rng):
    rows = []
    for split in ("dev", "test"):
        table = tables[f"{split}_task23"]
        rows += [["task1", split, "all", "", "threshold", 0.52, np.nan, np.nan, 90, 30, ""]] if split == "dev" else []
        for source in ("all", *SOURCES):
            own = table if source == "all" else table[table["source"] == source]
            for metric, value in (("auc", 0.93), ("f1", 0.91), ("precision", 0.9), ("recall", 0.92)):
                note = "" if (source, metric) != ("obst", "auc") else "all windows are earthquakes"
                rows.append(
                    ["task1", split, source, "", metric, np.nan if note else value, value - 0.03, value + 0.02, 60, 20, note]
                )
            rows += [
                ["task2", split, source, "", "mcc", 0.78, 0.7, 0.84, 60, 20, ""],
            ]
            for phase, column in (("P", "p_sample_pred"), ("S", "s_sample_pred")):
                rows += onset_rows(own[own["phase_label"] == phase], column, split, source, phase)
    rows += [["stability", "test", source, "", "stable", 0.991, 0.985, 0.996, 200, 20, ""] for source in SOURCES]
    return pd.DataFrame(rows, columns=COLUMNS)


def onset_rows(own, column, split, source, phase):
    names = ("within_0.1", "within_0.5", "mean", "rmse", "mae", "beyond_1.5")
    if (source, phase) == ("obst", "S"):
        return [["task3", split, source, phase, name, np.nan, np.nan, np.nan, 0, 0, "no S is labelled"] for name in names]
    late = ((own[column] - own["phase_onset"]) / 100).to_numpy()
    size = np.abs(late)
    values = (
        (size <= 0.1).mean(),
        (size <= 0.5).mean(),
        late.mean(),
        np.sqrt((late**2).mean()),
        size.mean(),
        (size > 1.5).mean(),
    )
    n, events = len(own), own["event"].nunique()
    return [
        ["task3", split, source, phase, name, v, v - 0.04, v + 0.04, n, events, ""] for name, v in zip(names, values, strict=True)
    ]


def calibration(rng):
    low = np.arange(10) / 10
    parts = [
        pd.DataFrame({
            "phase": phase, "bin_low": low, "bin_high": low + 0.1, "confidence": low + 0.05, "frequency": (low + 0.05) ** power,
            "n": (1e5 * 0.3 ** np.arange(10)).round() + 5,
        }) for phase, power in (("P", 1.1), ("S", 1.4))
    ]  # fmt: skip
    return pd.concat(parts)


def write_examples(path, rng, count, samples=4096):
    time = np.arange(samples)
    onsets = np.stack([rng.integers(700, 1500, 2 * count), rng.integers(1800, 2800, 2 * count)], 1)
    wave = 0.15 * rng.normal(size=(2 * count, 3, samples))
    chance = np.zeros((2 * count, samples, 3))
    for k, arrivals in enumerate(onsets):
        for phase, onset in enumerate(arrivals):
            since = np.clip(time - onset, 0, None)
            swing = np.sin(2 * np.pi * since * (0.06 - 0.02 * phase)) * since * np.exp(-since / 160) / 60
            wave[k] += swing * np.array([[1.0, 0.4, 0.5], [0.4, 1.0, 0.9]])[phase][:, None] * (1 + phase)
            late = (5 if k < count else 130 * (phase + 1)) * rng.normal()
            height = 0.9 if k < count or phase == 0 else 0.2
            chance[k, :, phase] = height * np.exp(-((time - onset - late) ** 2) / 800)
    chance[..., 2] = 1 - chance[..., :2].sum(-1)
    kind = np.array(["typical"] * count + ["worst"] * count)
    source = np.resize(np.array(SOURCES), 2 * count)
    names = np.array([f"bucket{k}$1,:3,:6000" for k in range(2 * count)])
    np.savez_compressed(
        path, wave=wave.astype(np.float32), probabilities=chance.astype(np.float32), onsets=onsets,
        phases=np.tile([0, 1], (2 * count, 1)), source=source, trace_name=names, kind=kind,
    )  # fmt: skip


def write_classes(folder, *, seed=0, accuracy=0.7, **run):
    """A classifier's folder."""
    folder.mkdir(parents=True)
    classes = ["FEQ1", "FEQ2", "Visso", "AEQ1", "AEQ2"]
    rng = np.random.default_rng(seed)
    said = {"experiment_name": "fore_aftershock/finetune_xlstm_unet", "run_id": f"run{seed}", "seed": seed}
    said |= {
        "training_sets": ["foreshock_synthetic"],
        "dataset": ["foreshock_synthetic"],
        "training_fraction": 1.0,
        "init": "frozen",
        "parameters": 20_400_000,
    }
    (folder / "run.json").write_text(json.dumps(said | run))
    counts = rng.multinomial(40, np.full(5, 0.2 * (1 - accuracy)), size=5) // 2 + np.diag(rng.binomial(60, accuracy, 5))
    pd.DataFrame(counts, index=classes, columns=classes).rename_axis("truth").to_csv(folder / "confusion.csv")
    right = np.diag(counts) / counts.sum(1)
    rows = [
        [
            "classification",
            "test",
            "foreshock_synthetic",
            "",
            "accuracy",
            np.trace(counts) / counts.sum(),
            0.6,
            0.78,
            counts.sum(),
            120,
            "",
        ]
    ]
    rows += [
        ["classification", "test", "foreshock_synthetic", "", f"accuracy_{name}", value, value - 0.08, value + 0.08, n, 24, ""]
        for name, value, n in zip(classes, right, counts.sum(1), strict=True)
    ]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "metrics.csv", index=False)
    return folder
