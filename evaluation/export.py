"""A checkpoint as a SeisBench model: ``python -m evaluation.export checkpoint=… output=folder``.

Writes ``<name>.json.v1`` and ``<name>.pt.v1`` (float32, CPU). In any notebook of an environment with this project::

    picker = wavexlstm.seisbench_model("folder")
    picker.classify(stream).picks

``cache=true`` also puts them where SeisBench looks: ``wavexlstm.WaveXLSTMPicker.from_pretrained("<name>")``. The thresholds of P
and S become the model's defaults: from an evaluation (``thresholds=…/thresholds.json``), chosen now on the dev split of a set
(``dataset_name=[ETHZ]``), or given (``p_threshold=0.4 s_threshold=0.3``). Without any of these they are those of the run's own
evaluation, if exactly one is of this checkpoint; else 0.3. Where they come from is said.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataloaders.normalise import PrepareConfig
from evaluation.picker import Picker
from evaluation.picker_options import DEFAULT_THRESHOLD
from evaluation.provenance import run_folder
from evaluation.seisbench_files import shared_weights
from evaluation.seisbench_model import CITATION, PHASES, WaveXLSTMPicker
from tasks.module import WaveModule
from utils import checkpoint, cli
from utils.console import console
from utils.errors import CheckpointError, DataError, demand

VERSION = "1"
"""Of the two files."""
NO_DATA = "a default, chosen on no data"
"""Where a threshold comes from that nobody chose."""


@dataclass(kw_only=True)
class Arguments:
    """Arguments of the command."""

    checkpoint: str
    """A checkpoint file of a picker, or a run folder: its newest."""
    output: str
    """Folder for the two files; made where it is missing."""
    name: str | None = None
    """Name of the model; null is that of the experiment, with _ for every sign SeisBench could stumble over."""
    thresholds: str | None = None
    """A thresholds.json of an evaluation, or the folder of one; null is that of the run, if exactly one is of this checkpoint."""
    dataset_name: list[str] = field(default_factory=list[str])
    """Choose the thresholds now, on the dev split of these sets: SeisBench names or folders."""
    p_threshold: float | None = None
    """Threshold of P; over what a file says."""
    s_threshold: float | None = None
    """Threshold of S; over what a file says."""
    cache: bool = False
    """Also write into SeisBench's cache, for from_pretrained."""
    citation: str = CITATION
    """What users of the model should cite."""
    about: str = ""
    """A sentence on what it was trained on; the checkpoint's experiment, data and commit are stated anyway."""

    def __post_init__(self) -> None:
        """State the ranges."""
        given = {"p_threshold": self.p_threshold, "s_threshold": self.s_threshold}
        demand(
            (not (self.thresholds and self.dataset_name), "thresholds and dataset_name: give one of them"),
            *((value is None or 0 < value <= 1, f"{key} = {value}: must be above 0, at most 1") for key, value in given.items()),
            (
                self.name is None or re.fullmatch(r"[\w-]+", self.name) is not None,
                f"name = '{self.name}': letters, digits, _ and -",
            ),
        )


@dataclass(frozen=True)
class Thresholds:
    """Thresholds by phase, and a line that says them and where they come from."""

    values: dict[str, float]
    told: str


def bridge(module: WaveModule, thresholds: dict[str, float] | None = None, citation: str = CITATION) -> WaveXLSTMPicker:
    """The SeisBench model of a trained picker: the same weights, on the CPU in float32.

    Args:
        module: a picker; refused where it is none (see :class:`evaluation.picker.Picker`).
        thresholds: by phase; None leaves SeisBench's defaults.
        citation: what users should cite.

    Raises:
        CheckpointError: no picker, or its objective has weights of its own, which a picture of the network would lose.
    """
    Picker(module)
    if module.task.state_dict():
        raise CheckpointError(f"the task has weights of its own ({', '.join(module.task.state_dict())}): it cannot be exported")
    sections = ("encoder", "model", "decoder", "task")
    parts: dict[str, Any] = {name: dict(module.config[name]) for name in sections}
    parts["model"]["checkpoint_path"] = None  # where the weights once came from: they are here now
    preparation = {key: getattr(value, "value", value) for key, value in vars(module.prepare_cfg).items() if key in _fields()}
    defaults = {f"{phase}_threshold": float(f"{value:.4g}") for phase, value in (thresholds or {}).items()}
    model = WaveXLSTMPicker(parts, preparation, module.spec, citation, defaults)
    model.network.load_state_dict(module.network.state_dict())
    return model


def open_picker(path: str) -> WaveXLSTMPicker:
    """The SeisBench model of an export, of a checkpoint, or of weights that were exported from one.

    Args:
        path: a folder, ``folder/name`` or file of an export; a checkpoint file or run folder; ``name.safetensors``, which
            ``python -m utils.checkpoint_show`` wrote (:func:`evaluation.seisbench_files.shared_weights`).

    Raises:
        CheckpointError: none of these, damaged, or no picker.
    """
    place = Path(path).expanduser()
    weights = shared_weights(place)
    if weights is not None:
        return bridge(Picker.load(str(weights)).module)
    is_checkpoint = place.suffix == ".ckpt" or (place.is_dir() and not any(place.glob("*.json*")))
    return bridge(Picker.load(path).module) if is_checkpoint else WaveXLSTMPicker.load(place)


def _fields() -> tuple[str, ...]:
    return tuple(PrepareConfig.__dataclass_fields__)


def thresholds_for(args: Arguments, picker: Picker) -> Thresholds:
    """Thresholds as the command's arguments say: given ones over those of a file or of a dev split, over the default.

    Raises:
        DataError: the file is missing or says nothing about P and S; the sets cannot be used.
    """
    if args.dataset_name:
        from evaluation.records import open_records
        from evaluation.thresholds import choose_thresholds

        records = open_records(args.dataset_name, channels=picker.channels)
        origin = f"chosen on dev of {', '.join(Path(name).name for name in args.dataset_name)}"
        found = {phase: (value, origin) for phase, value in choose_thresholds(picker, records).items()}
        return merged(found, {"P": args.p_threshold, "S": args.s_threshold})
    found, otherwise = evaluated(checkpoint.find(args.checkpoint), args.thresholds)
    return merged(found, {"P": args.p_threshold, "S": args.s_threshold}, otherwise)


def evaluated(file: Path, named: str | None) -> tuple[dict[str, tuple[float, str]], str]:
    """Thresholds of a file or folder that is named, else of the run's own evaluation, where exactly one is of this checkpoint.

    Args:
        file: the checkpoint.
        named: see :func:`from_file`.

    Returns:
        ((threshold, where it comes from) by phase, what to say of a phase that is not among them).

    Raises:
        DataError: what is named cannot be read.
    """
    if named is not None:
        return {phase: (value, f"from {Path(named).name}") for phase, value in from_file(named).items()}, NO_DATA
    own = _own_evaluations(file)
    if len(own) > 1:
        return {}, f"a default: this checkpoint was evaluated on {', '.join(own)}; choose with thresholds=…"
    found = {
        phase: (value, f"from the run's evaluation on {on}") for on, values in own.items() for phase, value in values.items()
    }
    return found, NO_DATA


def _own_evaluations(file: Path) -> dict[str, dict[str, float]]:
    """Thresholds by the data of an evaluation: those in the run's folder that are of this very checkpoint and chose any."""
    found: dict[str, dict[str, float]] = {}
    for chosen in sorted(run_folder(file).glob("evaluation/*/thresholds.json")):
        try:
            about = json.loads(chosen.with_name("run.json").read_text())
            if Path(about["checkpoint"]).name == file.name and about["step"] == checkpoint.read(file).step:
                found[chosen.parent.name] = from_file(str(chosen))
        except (OSError, ValueError, KeyError, TypeError, DataError):
            continue  # not a whole evaluation of a picker: nobody asked for it
    return found


def merged(chosen: Mapping[str, tuple[float, str]], given: Mapping[str, float | None], otherwise: str = NO_DATA) -> Thresholds:
    """A threshold for each phase: the given one, else the chosen one, else the default; and where each comes from.

    Args:
        chosen: (threshold, where it comes from) by phase.
        given: by phase, over the chosen ones.
        otherwise: what to say of a default.
    """
    values, origins = {}, {}
    for phase in PHASES:
        values[phase], origins[phase] = chosen.get(phase, (DEFAULT_THRESHOLD, otherwise))
        over = given[phase]
        if over is not None:
            values[phase], origins[phase] = over, "as given"
    return Thresholds(values, "; ".join(f"{phase} {values[phase]:.3g} ({origins[phase]})" for phase in PHASES))


def from_file(path: str) -> dict[str, float]:
    """The thresholds of a JSON file ``{"P": …, "S": …}``, or of the ``thresholds.json`` in a folder; one phase may be absent.

    Raises:
        DataError: no such file, or it says nothing about P and S.
    """
    file = Path(path).expanduser()
    file = file / "thresholds.json" if file.is_dir() else file
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"thresholds {file}: {error}. Run python -m evaluation.run checkpoint=…, which writes one.") from error
    found = {phase: content[phase] for phase in PHASES if phase in content} if isinstance(content, dict) else {}
    if not found or not all(isinstance(value, float | int) and 0 < value <= 1 for value in found.values()):
        raise DataError(f'thresholds {file}: needs {{"P": 0…1, "S": 0…1}}, holds {str(content)[:200]}')
    return found


def export(args: Arguments) -> list[Path]:
    """Write the model; returns the folders it was written to.

    Raises:
        WaveError: the checkpoint is no picker, the thresholds cannot be read.
    """
    picker = Picker.load(args.checkpoint)
    config = picker.module.config
    chosen = thresholds_for(args, picker)
    name = args.name or re.sub(r"[^\w-]+", "_", str(config["experiment_name"]))
    model = bridge(picker.module, chosen.values, args.citation)
    data = config["dataset"]["_name_"]
    about = f"{args.about} WaveXLSTM, experiment {config['experiment_name']}, data {data}. Thresholds: {chosen.told}.".strip()
    folders = [Path(args.output).expanduser(), *([Path(WaveXLSTMPicker._model_path())] if args.cache else [])]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            model.save(folder / name, about, VERSION)
        except OSError as error:
            raise DataError(f"output {folder}: cannot be written ({error}). Give another one.") from error
    out = console()
    out.print(f"thresholds: {chosen.told}", markup=False)
    out.print(f"written: {folders[0] / name}.json.v{VERSION} and .pt.v{VERSION}", markup=False, soft_wrap=True)
    out.print(f'use: wavexlstm.seisbench_model("{folders[0] / name}").classify(stream).picks', markup=False, soft_wrap=True)
    if args.cache:
        out.print(f'or: wavexlstm.WaveXLSTMPicker.from_pretrained("{name}").classify(stream).picks', markup=False, soft_wrap=True)
    return folders


def main(args: Arguments) -> None:
    """Export, say what and where."""
    export(args)


if __name__ == "__main__":
    cli.run(main, Arguments, where="evaluation.export")
