"""What a part of the network promises.

Shape letters, everywhere in this project: B batch, L samples, T tokens, C channels, D features (width), F width of the
quantizer's features, G code groups, V codes a group. A token covers ``stride`` samples: L = T · stride (the last token may
be padded). Abstract or final, never both.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from utils.registry import Registry

SEES_LATER = "it depends on what comes later in the window"
NO_STEP = "it has no form that goes on from a state of constant size"
"""Why most parts cannot run on a live stream."""


class Encoder(nn.Module, ABC):
    """Wave to tokens, in two steps: the quantizer reads ``features``; a task hides tokens after ``project``.

    Attributes:
        stride: samples a token covers.
        d_features: F, width of :meth:`features`.
        d_out: D, width of :meth:`project`.
        causal: token t depends on no sample after its last one, (t + 1) · stride − 1.
    """

    stride: int
    d_features: int
    d_out: int
    causal: bool

    @abstractmethod
    def features(self, wave: Tensor) -> Tensor:
        """Wave ``B L C`` to clean features ``B T F`` with T = ceil(L / stride)."""

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Features ``B T F`` to tokens ``B T D``."""

    def forward(self, wave: Tensor) -> Tensor:
        """Wave ``B L C`` to tokens ``B T D``."""
        return self.project(self.features(wave))

    def cannot_stream(self) -> str | None:
        """Why this part cannot go on from a state, piece by piece; None where :meth:`start` and :meth:`step` can."""
        return NO_STEP if self.causal else SEES_LATER

    def start(self, wave: Tensor) -> Any:
        """The state before the first sample, for waves like ``wave`` (``B L C``, any L)."""
        raise ValueError(self.cannot_stream())

    def step(self, wave: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The next piece of a stream, and its state: pieces give the tokens of the whole.

        Args:
            wave: ``B L C``, L a multiple of the stride; the last piece of a stream may have any length.
            state: of the samples before.

        Returns:
            tokens ``B ⌈L/stride⌉ D`` and the state after them.
        """
        raise ValueError(self.cannot_stream())


@dataclass(kw_only=True)
class BackboneConfig:
    """Settings every backbone has."""

    checkpoint_path: str | None = None
    """Start encoder and backbone from this checkpoint (a file, or a folder: its newest); null starts from scratch."""

    def settle(self, device: str, dtype: str) -> None:
        """Before data is touched: find out what will compute this backbone in a run. Nothing to find out unless overridden.

        Args:
            device: ``cpu`` or ``cuda``.
            dtype: of matrix products, ``float32``, ``bfloat16`` or ``float16``.

        Raises:
            ConfigError: code was asked for that cannot work there.
        """


class Backbone(nn.Module, ABC):
    """Tokens to contextualised tokens, any length T.

    Attributes:
        d_in: width of the tokens it takes; the encoder is built to match.
        d_out: width of the context it returns.
        causal: context t depends on no token after t.
        one_graph: torch.compile was seen to make one graph of it.
    """

    d_in: int
    d_out: int
    causal: bool
    one_graph: bool = False

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``B T D`` to context ``B T d_out``."""

    def by_depth(self) -> list[list[nn.Parameter]]:
        """Every parameter once, in layers from input to output, for learning rates by depth; one layer unless overridden."""
        return [list(self.parameters())]

    def cannot_stream(self) -> str | None:
        """Why this part cannot go on from a state of constant size; None where :meth:`start` and :meth:`step` can."""
        return NO_STEP if self.causal else SEES_LATER

    def start(self, tokens: Tensor) -> Any:
        """The state before the first token, for tokens like ``tokens`` (``B T D``, any T)."""
        raise ValueError(self.cannot_stream())

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Tokens ``B T D`` that follow ``state``, any T of at least 1: their context ``B T d_out``, and the new state."""
        raise ValueError(self.cannot_stream())

    def describe(self) -> str:
        """One line for the start of a run, e.g. which kernels were chosen and why; empty where there is nothing to say."""
        return ""


class Decoder(nn.Module, ABC):
    """Context to predictions: at the sampling rate, or one a trace. Built with ``d_in, d_out, stride, d_wave`` (C of the wave).

    Attributes:
        d_out: channels or classes of the prediction.
        causal: prediction l depends on no token after the one that covers sample l.
        per_trace: the prediction is ``B d_out``, one a trace, instead of ``B L d_out``.
        reach: tokens on either side that the prediction of a token's samples depends on, in the context and in the wave; 0
            where causal, None where it is the whole trace or too much of it to wait for in a stream.
    """

    d_out: int
    causal: bool
    reach: int | None = None
    per_trace: ClassVar[bool] = False

    @abstractmethod
    def forward(self, context: Tensor, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """Context to prediction.

        Args:
            context: ``B T D``.
            wave: ``B L C``, for its length and for heads that read it.
            valid: ``B L`` bool, samples that exist, for heads that pool; None: all.

        Returns:
            ``B L d_out``, or ``B d_out`` where ``per_trace``.
        """


@dataclass
class Codes:
    """What a quantizer returns, for ``N`` positions.

    Attributes:
        vectors: ``… d_out`` quantized vectors, differentiable (straight-through).
        indices: ``… G`` the chosen code of each group, int64.
        perplexity: scalar, Σ over groups of exp(entropy of the mean soft distribution over scored positions), no gradient.
        hard_perplexity: scalar, the same of the chosen codes (one-hot), no gradient.
        penalty: scalar the task adds with its own weight (diversity, commitment), already global over ranks.
    """

    vectors: Tensor
    indices: Tensor
    perplexity: Tensor
    hard_perplexity: Tensor
    penalty: Tensor


class Quantizer(nn.Module, ABC):
    """Continuous features to discrete codes (the targets of contrastive learning).

    Attributes:
        d_out: width of the quantized vectors.
        groups, codes: G and V.
    """

    d_out: int
    groups: int
    codes: int

    @abstractmethod
    def forward(self, features: Tensor, where: Tensor) -> Codes:
        """Features ``B M F`` and ``where`` ``B M`` (bool: the positions that count in statistics) to codes.

        ``where`` exists because positions are padded to a static M; vectors of positions outside it are meaningless.
        """

    @abstractmethod
    def codebook(self) -> Tensor:
        """The code vectors, ``G V d_out/G``."""

    def anneal(self, progress: float) -> None:
        """Set what changes over a run (Gumbel temperature), ``progress`` in 0…1. Quantizers without such ignore it."""

    def logs(self) -> dict[str, Tensor]:
        """Scalars worth a curve, e.g. ``{"temperature": …}``."""
        return {}


ENCODERS: Registry[Encoder] = Registry("encoder")
BACKBONES: Registry[Backbone] = Registry("model")
DECODERS: Registry[Decoder] = Registry("decoder")
QUANTIZERS: Registry[Quantizer] = Registry("quantizer")
