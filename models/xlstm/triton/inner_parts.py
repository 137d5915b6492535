"""What the kernels around the mLSTM cell share: which tiles of tokens a program goes over, and where these lie in memory."""
# ruff: noqa: ANN001, ANN201 - Triton reads annotations as its own types
# Triton's reductions are declared to return tuples as well:
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def span_of(parts: tl.constexpr, batch, tokens, span, BT: tl.constexpr):
    """Part (features or head), number of the span, direction, first tile and the one behind the last; tiles of all sequences."""
    program = tl.program_id(0)
    tiles = batch * tl.cdiv(tokens, BT)
    spans = tl.cdiv(tiles, span)
    number = (program // parts) % spans
    first = number * span
    return program % parts, number, program // (parts * spans), first, tl.minimum(first + span, tiles)


@triton.jit
def positions(tile, tokens, BT: tl.constexpr):
    """Sequence, and positions of a tile's tokens."""
    tiles = tl.cdiv(tokens, BT)
    return tile // tiles, tile % tiles * BT + tl.arange(0, BT)


@triton.jit
def time_of(s, back, tokens):
    """Where in the sequence a position lies."""
    return tl.where(back, tokens - 1 - s, s)


@triton.jit
def rows_of(X, row, t, feature, tokens, width):
    """Addresses ``tokens features`` of a sequence; width is of a whole token."""
    return X + row.to(tl.int64) * tokens * width + (t[:, None] * width + feature[None, :])


@triton.jit
def unit(shift, M: tl.constexpr, N: tl.constexpr, like):
    """M × N, 1 where the column is the row less ``shift``: a product with it moves rows down, exactly."""
    return (tl.arange(0, M)[:, None] - shift == tl.arange(0, N)[None, :]).to(like.dtype)


@triton.jit
def added(x, BT: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr):
    """Tokens × N to ``ROWS N``: every ROWS-th token added up, which threads do among what they have, and exchange nothing."""
    return tl.sum(tl.reshape(x, (BT // ROWS, ROWS, N)), 0)
