"""The public face of WaveXLSTM for notebooks and scripts: ``import wavexlstm``.

``wavexlstm.load("runs/quickstart/…")`` gives a trained module: ``module.network.encoder``, ``module.network.backbone``,
``module.task``. ``wavexlstm.embed(module, wave)`` gives a trace's tokens in context, ``wavexlstm.codes(module, wave)`` the
codes of a contrastive model. ``wavexlstm.Simulator`` makes seismograms.
``wavexlstm.seisbench_model("folder, checkpoint or name.safetensors")`` gives a trained picker as a SeisBench model:
``.annotate(stream)``, ``.classify(stream).picks``; ``wavexlstm.WaveXLSTMPicker`` is its class, imported when it is first asked
for.
``wavexlstm.stream("checkpoint")`` takes raw samples as they come and gives predictions as soon as they can be known.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dataloaders.batch import Batch, raw_batch
from dataloaders.normalise import prepare
from dataloaders.simulator.engine import Simulator
from dataloaders.simulator.settings import SimulatorConfig
from tasks.build import load_trained as load
from tasks.contrastive import Contrastive
from tasks.module import WaveModule
from utils.errors import CheckpointError

if TYPE_CHECKING:
    from evaluation.live import LiveStream
    from evaluation.seisbench_model import WaveXLSTMPicker

__all__ = ["Simulator", "SimulatorConfig", "WaveModule", "WaveXLSTMPicker", "codes", "embed", "load", "seisbench_model", "stream"]


def __getattr__(name: str) -> Any:
    """The SeisBench model class, without SeisBench's import where nobody wants it."""
    if name == "WaveXLSTMPicker":
        from evaluation.seisbench_model import WaveXLSTMPicker

        return WaveXLSTMPicker
    raise AttributeError(f"module 'wavexlstm' has no attribute '{name}'")


def seisbench_model(path: str) -> "WaveXLSTMPicker":
    """A trained picker as a SeisBench model, on the CPU.

    Args:
        path: what ``python -m evaluation.export`` wrote (folder, ``folder/name`` or file); a checkpoint of a picker; or its
            weights, ``name.safetensors``, as ``python -m utils.checkpoint_show … export=name`` writes them. The last two have no
            thresholds of their own: they are 0.3 unless ``classify`` is told others.

    Raises:
        CheckpointError: none of these, damaged, or of another task.
    """
    from evaluation.export import open_picker

    return open_picker(path)


def stream(model: WaveModule | str, memory: float | None = None) -> "LiveStream":
    """A trained network on one station's live stream, in constant memory::

        live = wavexlstm.stream("runs/live/…/checkpoints")
        while True:
            probabilities = live.feed(next_samples)  # N 3 raw counts in, M 3 of P, S, noise out

    For networks that see no later tokens, and whose training windows were normalised by the past alone, as a stream is:
    ``python train.py experiment=xlstm/small model.use_unet=false model.bidirectional=false dataset.normalise=running`` trains
    such a picker. Windows normalised otherwise are warned of: picks are lost.

    Args:
        model: from :func:`load`, or the path of a checkpoint.
        memory: seconds after which a sample counts 1/e in mean and scale; None: the length of the training windows.

    Raises:
        CheckpointError: the model cannot run on a stream, with the reason part by part.
        DataError: its preparation cannot.
    """
    from evaluation.live import LiveStream

    return LiveStream(model, memory)


@torch.no_grad()
def embed(module: WaveModule, wave: Tensor) -> Tensor:
    """Tokens in context of raw waveforms, prepared as the model was trained on them.

    Args:
        module: from :func:`load`.
        wave: ``B L C`` at 100 Hz in the order ZNE, counts or any unit; gaps as NaN.

    Returns:
        ``B T D``, a token every ``module.network.encoder.stride`` samples.
    """
    batch = _prepared(module, wave)
    return module.network.backbone(module.network.encoder(batch.wave))


@torch.no_grad()
def codes(module: WaveModule, wave: Tensor) -> Tensor:
    """Codes of raw waveforms: what a contrastive model quantizes its clean features to.

    Args:
        module: from :func:`load`, trained contrastively with a quantizer.
        wave: as in :func:`embed`.

    Returns:
        ``B T G`` int64, a code of each group every ``module.network.encoder.stride`` samples.

    Raises:
        CheckpointError: the model has no codes.
    """
    task = module.task
    if not isinstance(task, Contrastive) or task.quantizer is None:
        raise CheckpointError(
            f"this model was trained for task '{module.config['task']['_name_']}' and has no codes. Load a checkpoint of "
            "task=contrastive with a quantizer, such as runs/quickstart"
        )
    batch = _prepared(module, wave)
    features = module.network.encoder.features(batch.wave)
    return task.quantizer(features, torch.ones(features.shape[:2], dtype=torch.bool, device=wave.device)).indices


def _prepared(module: WaveModule, wave: Tensor) -> Batch:
    """Raw waveforms ``B L C`` as the model was trained on them."""
    return prepare(raw_batch(wave).on(wave.device), module.prepare_cfg)[0]
