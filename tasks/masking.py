"""Span masks: which positions of a trace are hidden, drawn for a whole batch at once on its device.

Shape letters: B batch, T positions (samples or tokens, whatever is hidden), M the most positions a trace can hide, D
features. Every random number is a function of (seed, epoch, index, stream), so a trace's mask does not depend on its
neighbours in the batch. Spans live on the valid positions only, in their order: a gap takes no part and costs no span.
"""

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.errors import ConfigError, demand
from utils.rng import Draw


class Sampler(str, Enum):
    """How spans are placed."""

    overlapping = "overlapping"
    """Spans start anywhere and may overlap, as in wav2vec 2.0 (Baevski et al. 2020, section 3.1); hides less than ``ratio``."""
    exact = "exact"
    """Spans never overlap; hides ``ratio`` to within one span."""


@dataclass(kw_only=True)
class MaskConfig:
    """What is hidden from the network."""

    sampler: Sampler = Sampler.overlapping
    """``overlapping`` spans as in wav2vec 2.0, or ``exact`` to hide the stated ratio."""
    ratio: float = 0.65
    """Sum of the span lengths as a fraction of the valid positions, in (0, 1)."""
    span: int = 10
    """Length of a span, in samples or tokens, at least 1."""
    bert_style: bool = False
    """Of the hidden spans, blank 80 %, show other positions of the trace in 10 %, leave 10 % as they are; all are scored."""
    mask_channel_prob: float = 0.0
    """Fraction of feature channels zeroed in training, in [0, 1); 0 turns channel masking off."""
    mask_channel_length: int = 10
    """Length of a span of zeroed feature channels, at least 1."""

    def __post_init__(self) -> None:
        demand(
            (0 < self.ratio < 1, f"ratio = {self.ratio}: must be above 0 and below 1"),
            (self.span >= 1, f"span = {self.span}: must be at least 1"),
            (0 <= self.mask_channel_prob < 1, f"mask_channel_prob = {self.mask_channel_prob}: must be in [0, 1)"),
            (self.mask_channel_length >= 1, f"mask_channel_length = {self.mask_channel_length}: must be at least 1"),
        )


def demand_hidden(cfg: MaskConfig, length: int, *, of: str) -> None:
    """Refuse settings that hide nothing worth scoring, before training.

    Args:
        cfg: the mask.
        length: T.
        of: what is hidden, ``"tokens"`` or ``"samples"``.

    Raises:
        ConfigError: a span does not fit into the trace, or fewer than two positions would be hidden.
    """
    wrong = []
    if cfg.span > length:
        wrong.append(f"mask: span = {cfg.span} is longer than a trace of {length} {of}: choose at most {length}")
    if cfg.ratio * length < 2:
        wrong.append(
            f"mask: ratio = {cfg.ratio} of {length} {of} hides {cfg.ratio * length:.2g}, and a trace needs two to be scored: "
            f"raise ratio above {2 / length:.2g} or the window"
        )
    if wrong:
        raise ConfigError(wrong)


def most_hidden(cfg: MaskConfig, length: int) -> int:
    """M: the most positions a trace of ``length`` can hide, known from the settings alone."""
    return min(_most_spans(cfg, length) * cfg.span, length)


def span_mask(cfg: MaskConfig, valid: Tensor, draw: Draw, *, stream: str = "mask") -> Tensor:
    """Draw the hidden positions.

    The number of spans is ratio · n / span for n valid positions, rounded up or down at random so that its mean is exact
    (at least one). A trace with fewer valid positions than a span, or fewer than two, hides nothing; any other at least two.

    Args:
        cfg: sampler, ratio and span.
        valid: ``B T`` bool; positions outside it are never hidden.
        draw: random numbers of the batch's traces.
        stream: name of the random stream.

    Returns:
        ``B T`` bool, True where hidden.
    """
    length = valid.shape[1]
    most = _most_spans(cfg, length)
    inside = valid.sum(1, keepdim=True)
    count = (cfg.ratio / cfg.span * inside + draw.uniform(f"{stream}/count", 1)).long()
    count = count.clamp(_fewest(cfg.span), most).minimum(inside // cfg.span)
    count = torch.where(inside >= max(cfg.span, 2), count, 0)

    number = torch.arange(length, device=valid.device)
    exact = cfg.sampler is Sampler.exact
    room = inside - count * (cfg.span - 1) if exact else inside - (cfg.span - 1)  # starts are below it
    keys = draw.uniform(f"{stream}/starts", length).masked_fill(number >= room, -1.0)
    starts = keys.topk(most, dim=1).indices.masked_fill(number[:most] >= count, length)
    if exact:  # drawn with the spans shrunk to points, which are then blown up in order
        starts = (starts.sort(1).values + number[:most] * (cfg.span - 1)).clamp_max(length)
    begins = torch.zeros(len(valid), length + 1, dtype=torch.int32, device=valid.device).scatter_(1, starts, 1)[:, :length]
    begun = begins.cumsum(1)
    covered = begun > F.pad(begun, (cfg.span, 0))[:, :length]
    return covered.gather(1, (valid.cumsum(1) - 1).clamp_min(0)) & valid


def _fewest(span: int) -> int:
    """Spans a trace hides at least, so that two positions are hidden."""
    return 2 if span == 1 else 1


def _most_spans(cfg: MaskConfig, length: int) -> int:
    return max(1, min(max(math.ceil(cfg.ratio * length / cfg.span), _fewest(cfg.span)), length // cfg.span))


def hidden_ratio(hidden: Tensor, valid: Tensor) -> Tensor:
    """Hidden as a fraction of the valid positions, both of one shape, a float32 scalar; 0 where nothing is valid."""
    return hidden.sum() / valid.sum().clamp_min(1)


def token_valid(valid: Tensor, stride: int) -> Tensor:
    """Valid samples ``B L`` to valid tokens ``B T``: a token is valid if every sample it covers is."""
    length = valid.shape[1]
    padded = F.pad(valid, (0, -length % stride), value=True)
    return padded.view(len(valid), -1, stride).all(-1)


def token_samples(tokens: Tensor, stride: int, length: int) -> Tensor:
    """Tokens ``B T`` (bool) to the samples ``B L`` they cover."""
    return tokens.repeat_interleave(stride, dim=1)[:, :length]


def positions(where: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The True positions of each trace, in order, padded to a static number.

    Args:
        where: ``B T`` bool, at most ``most`` of them True in a trace.
        most: M.

    Returns:
        (positions ``B M`` int64, 0 where padded; scored ``B M`` bool, False where padded).
    """
    slot = torch.where(where, where.cumsum(1) - 1, most).clamp_max(most)  # all others share a last slot that is cut off
    number = torch.arange(where.shape[1], device=where.device).expand_as(slot)
    found = number.new_zeros(len(where), most + 1).scatter_(1, slot, number)[:, :most]
    scored = torch.arange(most, device=where.device) < where.sum(1, keepdim=True)
    return found.masked_fill(~scored, 0), scored


def pick(values: Tensor, at: Tensor) -> Tensor:
    """Values ``B T D`` at positions ``B M``: ``B M D``."""
    return values.gather(1, at[..., None].expand(-1, -1, values.shape[-1]))


def conceal(cfg: MaskConfig, values: Tensor, blank: Tensor, hidden: Tensor, valid: Tensor, draw: Draw) -> Tensor:
    """Replace what is hidden.

    With ``bert_style`` (Devlin et al. 2019, section 3.1) each run of neighbouring hidden positions shares one fate (a single
    sample left standing in a hidden span would give its neighbours away): blank with 80 %, the values of other valid positions
    of the trace with 10 %, left as it is with 10 %.

    Args:
        cfg: the mask.
        values: ``B T D``.
        blank: what replaces hidden values; broadcasts against ``B T D``.
        hidden, valid: ``B T`` bool.
        draw: random numbers of the batch's traces.

    Returns:
        ``B T D``, in the dtype of ``values``.
    """
    blank = blank.to(values.dtype)
    if not cfg.bert_style:
        return torch.where(hidden[..., None], blank, values)
    length = hidden.shape[1]
    number = torch.arange(length, device=hidden.device)
    begins = hidden & ~F.pad(hidden, (1, 0))[:, :length]
    run = torch.where(begins, number, 0).cummax(1).values
    fate = draw.uniform("mask/fate", length).gather(1, run)[..., None]
    inside = valid.sum(1, keepdim=True)
    valid_first = (~valid).to(torch.uint8).argsort(dim=1, stable=True)
    donor = pick(values, valid_first.gather(1, draw.integers("mask/donor", inside, length)))
    shown = torch.where(fate < 0.8, blank, torch.where(fate < 0.9, donor, values))
    return torch.where(hidden[..., None], shown, values)


def mask_channels(cfg: MaskConfig, tokens: Tensor, draw: Draw) -> Tensor:
    """Zero spans of feature channels over the whole trace, as in wav2vec 2.0's fine-tuning (Baevski et al. 2020, section 4.3).

    Args:
        cfg: ``mask_channel_prob`` and ``mask_channel_length``.
        tokens: ``B T D``.
        draw: random numbers of the batch's traces.

    Returns:
        ``B T D``; the tokens themselves where channel masking is off.
    """
    if cfg.mask_channel_prob == 0:
        return tokens
    every = torch.ones(tokens.shape[0], tokens.shape[2], dtype=torch.bool, device=tokens.device)
    spans = MaskConfig(ratio=cfg.mask_channel_prob, span=min(cfg.mask_channel_length, tokens.shape[2]))
    return tokens.masked_fill(span_mask(spans, every, draw, stream="channels")[:, None], 0.0)
