"""States of networks on live streams, and long windows piece by piece."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.contracts import Decoder, Encoder

LONG = 2**16
"""Samples that encoders and decoders take at once where there are more."""


class StreamState(NamedTuple):
    """A stream between two pieces.

    Attributes:
        rest: samples that do not fill a token yet, ``B r C``.
        encoder, backbone: what the parts remember.
        context: tokens that the decoder still needs around it, ``B n D``.
        wave: their samples, ``B n·stride C``.
        told: how many of these tokens have had their prediction.
    """

    rest: Tensor
    encoder: Any
    backbone: Any
    context: Tensor
    wave: Tensor
    told: int


def leaves(state: Any) -> Iterator[Tensor]:
    """The tensors of a state."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, (tuple, list)):
        for part in state:
            yield from leaves(part)


def held(state: Any) -> int:
    """Bytes that a state keeps alive."""
    return sum(size for _, size in {(x.untyped_storage().data_ptr(), x.untyped_storage().nbytes()) for x in leaves(state)})


def compact(state: Any) -> Any:
    """The same without what its tensors are views of."""
    if isinstance(state, Tensor):
        return state.clone() if state.untyped_storage().nbytes() > state.numel() * state.element_size() else state
    if isinstance(state, list):
        return [compact(part) for part in state]
    if isinstance(state, tuple):
        parts = [compact(part) for part in state]
        return tuple(parts) if type(state) is tuple else type(state)(*parts)
    return state


def encoded(encoder: Encoder, wave: Tensor) -> Tensor:
    """Tokens ``B T D`` of a long wave ``B L C``, :data:`LONG` samples at once where the encoder goes on from a state."""
    if wave.shape[1] <= LONG or encoder.cannot_stream() is not None:
        return encoder(wave)
    state, out = encoder.start(wave), []
    for piece in wave.split(LONG // encoder.stride * encoder.stride, 1):
        tokens, state = encoder.step(piece, state)
        out.append(tokens)
    return torch.cat(out, 1)


def decoded(decoder: Decoder, context: Tensor, wave: Tensor, stride: int, valid: Tensor | None) -> Tensor:
    """Predictions of a long window, :data:`LONG` samples at once where the decoder's reach is known."""
    reach, T = decoder.reach, context.shape[1]
    if wave.shape[1] <= LONG or reach is None:
        return decoder(context, wave, valid)
    out, step = [], max(1, LONG // stride)
    for first in range(0, T, step):
        low, end = max(0, first - reach), min(T, first + step)
        high = min(T, end + reach)
        near = decoder(context[:, low:high], wave[:, low * stride : high * stride])
        out.append(near[:, (first - low) * stride : (end - low) * stride])
    return torch.cat(out, 1)
