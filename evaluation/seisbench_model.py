"""A trained picker as a SeisBench model: ``annotate``, ``classify``, ``save``, ``load``, ``from_pretrained``.

SeisBench is licensed under the GPL v3, and this module derives a class from one of its own: whoever distributes the two together
does so under the GPL's terms.

SeisBench's own ``annotate`` waits for ever where a network raises (its queues are filled by tasks whose errors nobody asks for,
0.12.6), drops stretches shorter than a window, and writes zeros into gaps, which a network that knows about gaps takes for
signal. Here it is a plain loop over :mod:`evaluation.streams` and :mod:`evaluation.sliding`: the same arguments, the same
output, errors that come out, and gaps that are gaps.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, final

import numpy as np
import seisbench
import seisbench.util as sbu
import torch
from numpy.typing import NDArray
from obspy import Stream, Trace
from torch import Tensor

from dataloaders.batch import PICK_CLASSES, raw_batch
from dataloaders.normalise import PrepareConfig, prepare
from dataloaders.sets.resample import RATE
from evaluation.picker_options import CPU_BATCH, DOCUMENTED, GPU_BATCH, PickOptions, read_options
from evaluation.picks import PickedPhase, peaks
from evaluation.seisbench_files import SavedModel
from evaluation.sliding import Stack, Stacking, noise_in_gaps, offsets
from evaluation.streams import Findings, Segment, segments, without_sparse_components
from tasks.build import build_network, spec_from_record
from utils.errors import CheckpointError
from utils.registry import mistakes_in, typed

PHASES = PICK_CLASSES[:2]
"""What is picked."""
CITATION = "WaveXLSTM: phase picking with xLSTM networks. Cite the data the picker was trained on as well."
"""Default citation."""


def picks_on(segment: Segment, curve: NDArray[np.float32], thresholds: Mapping[str, float]) -> list[PickedPhase]:
    """The picks on a segment's probabilities ``N 3``, by the threshold of each phase."""
    return [
        PickedPhase(
            time=segment.start + peak.peak / RATE,
            trace_id=segment.trace_id,
            phase=phase,
            probability=peak.probability,
            start=segment.start + peak.start / RATE,
            end=segment.start + peak.end / RATE,
            instrument=segment.instrument,
        )
        for column, phase in enumerate(PHASES)
        for peak in peaks(curve[:, column], thresholds[phase])
    ]


@final
class WaveXLSTMPicker(SavedModel):
    """P and S with a network of this project; built from plain builtins, which SeisBench's JSON file holds.

    Args:
        parts: config nodes ``encoder``, ``model``, ``decoder``, ``task`` of the checkpoint.
        preparation: settings of :class:`dataloaders.normalise.PrepareConfig`.
        data_spec: what the training data looked like, as in a checkpoint.
        citation: what to cite.
        default_args: defaults of ``annotate`` and ``classify``: ``{"P_threshold": 0.4, "S_threshold": 0.3}``.

    Raises:
        CheckpointError: the classes are not P, S, N in this order, or the preparation is not one of this version.
        ConfigError: the parts are not those of this version.
    """

    _annotate_args: ClassVar[dict[str, tuple[str, Any]]] = {**SavedModel._annotate_args, **DOCUMENTED}
    _stack_options = frozenset(how.value for how in Stacking)

    def __init__(
        self,
        parts: Mapping[str, Any],
        preparation: Mapping[str, Any],
        data_spec: Mapping[str, Any],
        citation: str = CITATION,
        default_args: Mapping[str, Any] | None = None,
    ) -> None:
        spec = spec_from_record(data_spec)
        wrong = mistakes_in(PrepareConfig, preparation, where="preparation")
        if spec.classes != PICK_CLASSES:
            wrong.append(f"classes {', '.join(spec.classes)}: a picker's are {', '.join(PICK_CLASSES)}, in this order")
        if spec.rate != RATE:
            wrong.append(f"{spec.rate:g} Hz: records are picked at {RATE:g} Hz")
        if wrong:
            raise CheckpointError("; ".join(wrong))
        letters = "ZNE"[: spec.channels]
        super().__init__(
            citation=citation,
            in_samples=spec.samples,
            output_type="array",
            pred_sample=(0, spec.samples),
            labels="".join(PICK_CLASSES),
            sampling_rate=spec.rate,
            component_order=letters,
            default_args=dict(default_args or {}),
            grouping="instrument",
        )
        self.window, self.letters = spec.samples, letters
        self.parts, self.preparation, self.data_spec = dict(parts), dict(preparation), dict(data_spec)
        self.prepare_cfg: PrepareConfig = typed(PrepareConfig, preparation)
        self.network = build_network(parts, spec)
        self.eval()

    # What SeisBench asks of a model

    def forward(self, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """Prepared waves ``B C W`` (and which samples exist, ``B W``) to probabilities ``B 3 W`` float32 of P, S, noise.

        Weights in half precision are read as float32: the memory of an mLSTM is float32 anyway, and nothing has to match.
        """
        weights = {name: value.float() if value.is_floating_point() else value for name, value in self._weights()}
        scores = torch.func.functional_call(self.network, weights, (wave.float().transpose(1, 2), valid))
        return scores.float().softmax(-1).transpose(1, 2)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.network.named_parameters()
        yield from self.network.named_buffers()

    def annotate_batch_pre(self, batch: Tensor, argdict: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Raw windows ``B C W``, NaN where there is no sample, to (prepared as in training ``B C W``, valid ``B W``)."""
        raw = raw_batch(batch.transpose(1, 2)).on(batch.device)
        ready, _ = prepare(raw, self.prepare_cfg)
        return ready.wave.transpose(1, 2), ready.valid

    def annotate_batch_post(self, batch: Tensor, piggyback: Tensor | None, argdict: Mapping[str, Any]) -> Tensor:
        """Probabilities ``B 3 W`` to ``B W 3``; NaN in the blinded margins, and where samples are not valid (``piggyback``)."""
        before, after = argdict.get("blinding", DOCUMENTED["blinding"][1])
        place = torch.arange(batch.shape[2], device=batch.device)
        seen = ((place >= before) & (place < batch.shape[2] - after)).expand(len(batch), -1)
        seen = seen if piggyback is None else seen & piggyback
        return batch.float().transpose(1, 2).masked_fill(~seen[..., None], torch.nan)

    def classify_aggregate(self, annotations: Stream, argdict: Mapping[str, Any]) -> sbu.ClassifyOutput:
        """Curves of probability to ``ClassifyOutput(picks=…)``, by the threshold of each phase."""
        chosen = self._options(argdict)
        found = []
        for phase in PHASES:
            for trace in annotations.select(channel=f"{self.name}_{phase}"):
                start, step = trace.stats.starttime, trace.stats.delta
                found += [
                    sbu.Pick(
                        trace_id=".".join(trace.id.split(".")[:3]),
                        start_time=start + peak.start * step,
                        end_time=start + peak.end * step,
                        peak_time=start + peak.peak * step,
                        peak_value=peak.probability,
                        phase=phase,
                    )
                    for peak in peaks(trace.data, chosen.thresholds[phase])
                ]
        return sbu.ClassifyOutput(self.name, picks=sbu.PickList(sorted(found)))

    def get_model_args(self) -> dict[str, Any]:
        """The constructor's arguments, plain builtins."""
        return {
            "parts": self.parts,
            "preparation": self.preparation,
            "data_spec": self.data_spec,
            "citation": self.citation,
        }

    # Continuous records

    def _options(self, given: Mapping[str, Any]) -> PickOptions:
        return read_options({**self.default_args, **given}, window=self.window, phases=PHASES)

    def curves(self, stream: Stream, **given: Any) -> tuple[Iterator[tuple[Segment, NDArray[np.float32]]], Findings]:
        """Segments of a stream, each with its probabilities ``N 3``: NaN in blinded ends, noise inside gaps.

        Args:
            stream: anything that ObsPy read; not changed.
            given: see ``picker_options.DOCUMENTED``.

        Returns:
            (an iterator that computes as it is read, what was skipped or repaired).
        """
        chosen = self._options(given)
        found, findings = segments(
            stream, window=self.window, components=self.letters, flexible=chosen.flexible, strict=chosen.strict
        )
        return ((segment, self._curve(segment, chosen)) for segment in found), findings

    def _curve(self, segment: Segment, chosen: PickOptions) -> NDArray[np.float32]:
        """Probabilities ``N 3`` of a segment."""
        samples = segment.wave.shape[1]
        padded = np.pad(segment.wave, ((0, 0), (0, max(0, self.window - samples))), constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.window, axis=1)
        stack = Stack(samples, self.window, len(PICK_CLASSES), chosen.stacking)
        batch = chosen.batch_size or (CPU_BATCH if torch.device(self.device).type == "cpu" else GPU_BATCH)
        places = offsets(segment.number, samples, self.window, chosen.hop)
        for low in range(0, len(places), batch):
            now = places[low : low + batch]
            for place, prediction in zip(now, self._predict(windows[:, now].swapaxes(0, 1), chosen), strict=True):
                stack.add(int(place), prediction)
        return noise_in_gaps(stack.result())

    @torch.inference_mode()
    def _predict(self, windows: NDArray[np.float32], chosen: PickOptions) -> NDArray[np.float32]:
        """Raw windows ``B C W`` to probabilities ``B W 3``."""
        given = torch.as_tensor(without_sparse_components(windows), device=self.device)
        argdict = {"blinding": chosen.blinding}
        wave, valid = self.annotate_batch_pre(given, argdict)
        return self.annotate_batch_post(self(wave, valid), valid, argdict).cpu().numpy()

    def picks(self, stream: Stream, **given: Any) -> tuple[list[PickedPhase], Findings]:
        """The same picks as :meth:`classify`, with their instrument, and what was skipped or repaired."""
        chosen = self._options(given)
        curves, findings = self.curves(stream, **given)
        found = []
        for segment, curve in curves:
            found += picks_on(segment, curve, chosen.thresholds)
        return sorted(found), findings

    def annotate(self, stream: Stream, copy: bool = True, **kwargs: Any) -> Stream:
        """Probabilities of a stream as SeisBench gives them: a trace a class and segment, channel ``WaveXLSTMPicker_P``.

        Args:
            stream: anything that ObsPy read; never changed, whatever ``copy`` says.
            copy: accepted as SeisBench's.
            kwargs: see ``picker_options.DOCUMENTED``.

        Raises:
            ConfigError: an argument that does not exist or makes no sense.
        """
        curves, findings = self.curves(stream, **kwargs)
        output = Stream()
        for segment, curve in curves:
            there = np.flatnonzero(np.isfinite(curve[:, 0]))
            if not len(there):
                continue
            low, high = there[0], there[-1] + 1
            network, station, location = segment.trace_id.split(".")
            for column, label in enumerate(PICK_CLASSES):
                header = {
                    "network": network,
                    "station": station,
                    "location": location,
                    "channel": f"{self.name}_{label}",
                    "sampling_rate": RATE,
                    "starttime": segment.start + low / RATE,
                }
                output.append(Trace(np.ascontiguousarray(curve[low:high, column]), header))
        for what, why in findings.skipped:
            seisbench.logger.warning(f"{what} is not used: {why}")
        return output

    async def annotate_async(self, stream: Stream, copy: bool = True, **kwargs: Any) -> Stream:
        """:meth:`annotate` in a thread."""
        return await asyncio.to_thread(self.annotate, stream, **kwargs)

    def classify(self, stream: Stream, parallelism: int | None = None, **kwargs: Any) -> sbu.ClassifyOutput:
        """The picks of a stream: ``classify(stream).picks``. Arguments as :meth:`annotate`."""
        return self.classify_aggregate(self.annotate(stream, **kwargs), kwargs)

    async def classify_async(self, stream: Stream, **kwargs: Any) -> sbu.ClassifyOutput:
        """:meth:`classify` in a thread."""
        return await asyncio.to_thread(self.classify, stream, **kwargs)
