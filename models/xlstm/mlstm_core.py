"""The heavy part of the mLSTM: attention inside chunks, the memory they read, the normaliser; forward and backward by hand.

Written for a batch X of chunks of L tokens. Everything is stabilised: what is held is the true value times exp(−m), where
m = b + M is the logarithm of the largest weight a token gives to any of its past (Beck et al. 2024, xLSTM, equations 15, 21–27).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class ChunkAttention(torch.autograd.Function):
    """h_t = (Σ_s A_ts v_s + e_t q_t C) / (max(|Σ_s A_ts + e_t q_t n|, exp(−m_t)) + eps).

    A_ts = (q_t · k_s) exp(u_s − M_t) for s ≤ t, with q scaled by 1/√D.

    The running maximum M is a scale: h depends on it through eps alone, so its gradient is that small remainder, and M is held
    fixed everywhere else. All gradients are exact, the normaliser's included.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, u: Tensor, b: Tensor, M: Tensor,
        C: Tensor | None, n: Tensor | None, e: Tensor | None, eps: float,
    ) -> Tensor:  # fmt: skip
        """Attend.

        Args:
            ctx: autograd's.
            q, k, v: ``X L D``, in the dtype of the matrix products.
            u: ``X L``, input gate minus b.
            b: ``X L``, log forget gates summed from the chunk's start.
            M: ``X L``, running maximum of u and of the memory's own scale.
            C, n: memory before the chunk ``X D D`` and its normaliser ``X D``; None where the chunk has no past.
            e: ``X L``, exp(scale of the memory − M); a pure scale, so it takes no gradient.
            eps: added to the normaliser.
        """
        scale = q.shape[-1] ** -0.5
        P = (u[:, None, :] - M[:, :, None]).exp_().tril_()
        A = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale) * P
        s = A.sum(-1)
        top = torch.bmm(A.to(v.dtype), v).to(u.dtype)
        if C is not None and n is not None and e is not None:
            qe = q * (e * scale)[..., None].to(q.dtype)
            top = _plus_product(top, qe, C)
            s = s + torch.bmm(qe.to(n.dtype), n[..., None]).squeeze(-1)
        floor = (-(b + M)).exp()
        below = torch.maximum(s.abs(), floor) + eps
        h = top.div_(below[..., None])
        ctx.save_for_backward(q, k, v, A, P, C, n, e, h, s, floor, below)
        ctx.eps = eps
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of q, k, v, u, b, M, C, n (e and eps take none)."""
        q, k, v, A, P, C, n, e, h, s, floor, below = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        pull = (dh * h).sum(-1)
        dtop = (dh / below[..., None]).to(v.dtype)
        by_sum = s.abs() > floor
        ds = torch.where(by_sum, -pull / below * s.sign(), 0.0)
        share = ctx.eps / below
        db = torch.where(by_sum, 0.0, pull * (1.0 - share))
        dM = -pull * share
        dA = _plus_product(ds[..., None], dtop, v.transpose(1, 2))
        du = (dA * A).sum(1)
        dS = dA.mul_(P).to(q.dtype)
        dk = torch.baddbmm(q.new_empty(1, 1, 1), dS.transpose(1, 2), q, beta=0, alpha=scale)
        dv = torch.bmm(A.to(v.dtype).transpose(1, 2), dtop)
        if C is None:
            dq = torch.baddbmm(q.new_empty(1, 1, 1), dS, k, beta=0, alpha=scale)
            return dq, dk, dv, du, db, dM, None, None, None, None
        weight = (e * scale)[..., None]
        qe = q * weight.to(q.dtype)
        dqe = _plus_product(ds[..., None] * n[:, None], dtop, C.transpose(1, 2))
        dq = torch.baddbmm((dqe * weight).to(q.dtype), dS, k, alpha=scale)
        dC = torch.bmm(qe.transpose(1, 2), dtop)
        dn = torch.bmm(ds[:, None], qe.to(ds.dtype)).squeeze(1)
        return dq, dk, dv, du, db, dM, dC, dn, None, None


def _plus_product(base: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """base + left · right in the dtype of ``base``; one call where all three have it."""
    if left.dtype == base.dtype:
        return torch.baddbmm(base, left, right)
    return base + torch.bmm(left, right)
