"""The network: three parts in a row, over whole windows or along a live stream."""

from typing import final

import torch
from torch import Tensor, nn

from models.contracts import Backbone, Decoder, Encoder
from models.streaming import LONG, StreamState, compact, decoded, encoded


@final
class Network(nn.Module):
    """encoder → backbone → decoder. Tasks that work on tokens call the parts themselves.

    On a stream (:meth:`start`, :meth:`step`, :meth:`finish`) samples wait until they fill a token; tokens go through encoder and
    backbone at once, whose states remember all that was before. A decoder that looks ``reach`` tokens around gets them: its
    predictions come that much later. Pieces of any lengths give the numbers of the whole window up to rounding, in memory that
    does not grow; what has been given out depends on no later sample.
    """

    def __init__(self, encoder: Encoder, backbone: Backbone, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.backbone = backbone
        self.decoder = decoder

    @property
    def causal(self) -> bool:
        """No output depends on a later sample than its own token's last."""
        return self.encoder.causal and self.backbone.causal and self.decoder.causal

    def forward(self, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """Wave ``B L C`` (and which of its samples exist, ``B L``) to the decoder's prediction ``B L d_out`` or ``B d_out``.

        Without gradients a long window is taken in pieces, so that memory is what tokens and predictions need.
        """
        if torch.is_grad_enabled() or self.training:
            return self.decoder(self.backbone(self.encoder(wave)), wave, valid)
        context = self.backbone(encoded(self.encoder, wave))
        return decoded(self.decoder, context, wave, self.encoder.stride, valid)

    def cannot_stream(self) -> str | None:
        """Why this network cannot run on a live stream, part by part; None where it can."""
        reasons = [
            f"{name}: {reason}"
            for name, reason in (("encoder", self.encoder.cannot_stream()), ("backbone", self.backbone.cannot_stream()))
            if reason is not None
        ]
        if self.decoder.reach is None:
            reasons.append("decoder: it looks at the whole trace, or at too much of what comes later to wait for")
        return "; ".join(reasons) or None

    @property
    def delay(self) -> int:
        """Samples that must follow one on a stream before its prediction is given out, at most."""
        return ((self.decoder.reach or 0) + 1) * self.encoder.stride - 1

    def start(self, wave: Tensor) -> StreamState:
        """The state before the first sample, for waves like ``wave`` (``B L C``, any L).

        Raises:
            ValueError: the network cannot run on a stream, with the reason; or it is in training mode.
        """
        reason = self.cannot_stream()
        if reason is not None:
            raise ValueError(f"this network cannot run on a live stream. {reason}")
        if self.training:
            raise ValueError("a stream is for a trained network: call eval() first, which takes dropout out")
        none = wave[:, :0]
        context = none.new_zeros(len(wave), 0, self.backbone.d_out)
        backbone = self.backbone.start(none.new_zeros(len(wave), 0, self.backbone.d_in))
        return StreamState(none, self.encoder.start(none), backbone, context, none, 0)

    def step(self, wave: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """The next samples ``B L C`` of a stream, any L: predictions ``B N d_out`` that are now due, and the new state.

        Predictions follow on those given before: the first is that of the stream's first sample.
        """
        due = []
        for piece in wave.split(LONG, 1):
            prediction, state = self._advance(piece, state, last=False)
            due.append(prediction)
        return torch.cat(due, 1), state

    def finish(self, state: StreamState) -> Tensor:
        """The stream ends: predictions ``B N d_out`` of the samples that had none yet. The state is spent."""
        return self._advance(state.rest[:, :0], state, last=True)[0]

    def _advance(self, wave: Tensor, state: StreamState, *, last: bool) -> tuple[Tensor, StreamState]:
        stride, wave = self.encoder.stride, torch.cat([state.rest, wave], 1)
        whole = wave.shape[1] if last else wave.shape[1] // stride * stride
        now, rest = wave[:, :whole], wave[:, whole:]
        encoder, backbone, context = state.encoder, state.backbone, state.context
        if whole:
            tokens, encoder = self.encoder.step(now, encoder)
            fresh, backbone = self.backbone.step(tokens, backbone)
            context = torch.cat([context.to(fresh.dtype), fresh], 1)
        wave, reach = torch.cat([state.wave, now], 1), self.decoder.reach or 0
        done = context.shape[1] if last else max(state.told, context.shape[1] - reach)
        prediction = context.new_zeros(len(context), 0, self.decoder.d_out)
        if done > state.told:
            prediction = self.decoder(context, wave)[:, state.told * stride : done * stride]
        first = max(0, done - reach)
        after = StreamState(rest, encoder, backbone, context[:, first:], wave[:, first * stride :], done - first)
        return prediction, compact(after)
