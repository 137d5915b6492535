"""Each token predicts the samples it covers."""

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from models.contracts import DECODERS, Decoder


@dataclass(kw_only=True)
class LinearDecoderConfig:
    """The linear decoder has no settings: its widths follow from the backbone, the stride and the task."""


@DECODERS.register("linear", LinearDecoderConfig)
@final
class LinearDecoder(Decoder):
    """Linear D → stride · d_out, laid out along time and cropped to the wave; at stride 1 a linear map a sample.

    Args:
        cfg: empty.
        d_in: D, width of the context.
        d_out: channels or classes of the prediction.
        stride: samples a token covers.
        d_wave: ignored; for heads that read the wave.
    """

    causal = True
    reach = 0

    def __init__(self, cfg: LinearDecoderConfig, *, d_in: int, d_out: int, stride: int, d_wave: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.d_out = d_out
        self.head = nn.Linear(d_in, stride * d_out)

    def forward(self, context: Tensor, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """See :meth:`Decoder.forward`."""
        samples = self.head(context).reshape(len(context), -1, self.d_out)
        return samples[:, : wave.shape[1]]
