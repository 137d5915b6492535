"""A trained network on a live stream: raw samples in as they come, predictions out as soon as they can be known."""

import warnings
from typing import final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dataloaders.normalise import Normalise
from dataloaders.running import RunningPreparation
from models.streaming import held
from tasks.build import load_trained
from tasks.module import WaveModule
from utils.errors import CheckpointError, DataError

UNLIKE = (
    "this network was trained with dataset.normalise={}, from the whole of each window, which a live stream cannot know: it will "
    "miss picks. Train it with dataset.normalise=running"
)


@final
class LiveStream:
    """One station's stream through a network, in constant memory; pieces of any lengths give the same predictions.

    Up to rounding these are the predictions for the whole stream as one window of prepared samples. Preparation is
    :class:`dataloaders.running.RunningPreparation`, with statistics of the past alone: that of training windows where they were
    normalised so (``dataset.normalise=running``). A network trained on others is warned of: it meets amplitudes it never saw.

    Args:
        model: from :func:`wavexlstm.load`, or the path of a checkpoint. One that sees no later tokens: ``model=xlstm-unet`` with
            ``model.use_unet=false model.bidirectional=false``, an lstm in one direction. Decoders linear, upsampling-decoder,
            double-conv-phase-pick and -concat; the latter three wait for the few tokens they look ahead.
        memory: seconds after which a sample counts 1/e in mean and scale; None: the length of the training windows.

    Raises:
        CheckpointError: the model cannot run on a stream, with the reason part by part.
        DataError: its preparation cannot.
    """

    def __init__(self, model: WaveModule | str, memory: float | None = None) -> None:
        module = load_trained(model) if isinstance(model, str) else model.eval()
        self._network = module.network
        reason = self._network.cannot_stream()
        if self._network.decoder.d_out == 0:
            reason = "it has no decoder, hence nothing to predict; module.network.backbone.step gives tokens in context"
        if reason is not None:
            raise CheckpointError(f"this model cannot run on a live stream. {reason}")
        self.rate: float = module.spec["rate"]
        self.components: int = module.spec["channels"]
        self.given = 0
        """Samples whose prediction was given out."""
        self._picks = module.config["task"]["_name_"] == "phase_pick"
        if module.prepare_cfg.normalise is not Normalise.running:
            warnings.warn(UNLIKE.format(module.prepare_cfg.normalise.value), stacklevel=2)
        self._prepare = RunningPreparation(module.prepare_cfg, round(memory * self.rate) if memory else module.spec["samples"])
        weight = next(self._network.parameters())
        self._like = weight.new_zeros(1, 0, module.prepare_cfg.d_data)
        self._state = self._network.start(self._like)

    @property
    def delay(self) -> float:
        """Seconds after a sample at which its prediction is given out, at most."""
        return self._network.delay / self.rate

    @property
    def memory_bytes(self) -> int:
        """Bytes of the state, which do not grow with the stream."""
        return held(self._state)

    @torch.inference_mode()
    def feed(self, samples: ArrayLike) -> NDArray[np.float32]:
        """The next samples, and all predictions that are now due.

        Args:
            samples: ``N C`` at the model's rate (100 Hz) in the order ZNE, counts or any unit, any N; NaN where there is none.

        Returns:
            ``M d_out``, those of samples ``given … given + M − 1`` of the stream before the call: for a picker the probabilities
            of P, S and noise, for others what the decoder says, in units of the prepared wave.

        Raises:
            DataError: another number of components.
        """
        raw = np.asarray(samples, dtype=np.float64)
        if raw.ndim != 2 or raw.shape[1] != self.components:
            raise DataError(
                f"samples have the shape {raw.shape}: must be N × {self.components}, a row a sample, in the order ZNE"
            )
        wave = torch.from_numpy(self._prepare(raw)).to(self._like)[None]
        scores, self._state = self._network.step(wave, self._state)
        return self._told(scores)

    @torch.inference_mode()
    def finish(self) -> NDArray[np.float32]:
        """The stream ends: predictions of the samples that had none yet; afterwards nothing may be fed."""
        return self._told(self._network.finish(self._state))

    def _told(self, scores: torch.Tensor) -> NDArray[np.float32]:
        self.given += scores.shape[1]
        scores = scores[0].float()
        return (scores.softmax(-1) if self._picks else scores).cpu().numpy()
