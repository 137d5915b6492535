"""The heavy part of the mLSTM: attention inside chunks, the memory between them, the normaliser; forward and backward by hand.

Z rows (batch × heads), each of N chunks of L tokens; X = Z·N. All is stabilised: what is held is the true value times
exp(−m), where m = b + M is the logarithm of the largest weight a token gives to any of its past (Beck et al. 2024, xLSTM,
equations 15 and 21–27).
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from utils.autograd import output_of


class Past(NamedTuple):
    """How chunks reach back; R = N rows, or N + 1 where the memory after the last chunk is wanted.

    Attributes:
        forget: ``Z R``, G: log forget gates summed over the chunks before chunk r. Takes a gradient: also that of all below
            that is made from it, so they are to be made from a detached one.
        weight: ``Z R N``, what chunk j has left of itself before chunk r, exp(G_r − G_j + scales), 0 for j ≥ r. No gradient.
        memory: ``Z R D·E``, what is left of the memory before the first chunk; None for nothing. Takes a gradient.
        norm: ``Z R D``, the same of the normaliser.
        write: ``Z N L``, exp(u − largest u of the chunk). A scale: no gradient.
        read: ``Z N L``, exp(scale of the memory − M). A scale: no gradient.
    """

    forget: Tensor
    weight: Tensor
    memory: Tensor | None
    norm: Tensor | None
    write: Tensor
    read: Tensor


def attend(
    q: Tensor, k: Tensor, v: Tensor, u: Tensor, b: Tensor, M: Tensor, past: Past | None, eps: float
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """h_t = (Σ_s A_ts v_s + r_t q_t C) / (max(|Σ_s A_ts + r_t q_t n|, exp(−m_t)) + eps), A_ts = q_t · k_s exp(u_s − M_t), s ≤ t.

    q is scaled by 1/√D. C and n are the memory before the chunk: what earlier chunks wrote, Σ_s write_s k_s v_sᵀ, weighted.

    Args:
        q, k, v: ``X L D``, in the dtype of the matrix products; v may have another width E.
        u: ``Z N L``, input gate minus b.
        b: ``Z N L``, log forget gates summed from the chunk's start.
        M: ``Z N L``, running maximum of u and of the memory's scale.
        past: None where the only chunk has no past.
        eps: added to the normaliser.

    Returns:
        h ``X L E`` in the dtype of u; C ``Z R D·E`` and n ``Z R D`` (None without a past).
    """
    if past is None:
        return _Attention.apply(q, k, v, u, b, M, None, None, None, None, None, None, eps)  # pyright: ignore[reportReturnType]
    return _Attention.apply(q, k, v, u, b, M, *past, eps)  # pyright: ignore[reportReturnType]


class _Attention(torch.autograd.Function):
    """See :func:`attend`.

    The running maxima are scales: h depends on them through eps alone. M's gradient is that small remainder, and everywhere
    else they are held fixed, so all gradients are exact, the normaliser's included. As A_ts and what is written to the memory
    are both proportional to k_s and to exp(u_s), the gradient of u_s is that of k_s times k_s. Likewise G_r multiplies row r
    of the memory and divides what chunk r writes, so its gradient is read off these products; what chunks wrote need not be
    kept, and the decays exp(u_s − M_t) are computed again.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, u: Tensor, b: Tensor, M: Tensor, G: Tensor | None,
        W: Tensor | None, C0: Tensor | None, n0: Tensor | None, write: Tensor | None, read: Tensor | None, eps: float,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        ctx.set_materialize_grads(False)
        by_row = (len(q), -1)
        A = torch.bmm(q, k.transpose(1, 2)).to(u.dtype).mul_(_decays(u, M, q))
        s = A.sum(-1)
        top = torch.bmm(A.to(v.dtype), v).to(u.dtype)
        C = n = None
        if W is not None and write is not None and read is not None:
            kv, kn = _written(k, v, write, W)
            C, n = torch.bmm(W, kv), torch.bmm(W, kn)
            if C0 is not None and n0 is not None:
                C, n = C.add_(C0), n.add_(n0)
            before, norm = _before(C, n, v, W)
            qr = q * _reading(read, q)
            top = _plus_product(top, qr, before)
            s = s.add_(torch.bmm(qr.to(n.dtype), norm).squeeze(-1))
        floor = (b + M).neg_().exp_().view(*by_row)
        size = s.abs()
        by_sum = size > floor
        below = torch.maximum(size, floor).add_(eps)
        turn = torch.where(by_sum, s.sign() / below, 0.0)
        h = top.div_(below[..., None])
        ctx.save_for_backward(q, k, v, u, M, A, W, C, n, write, read, h, by_sum, below, turn)
        ctx.eps, ctx.given, ctx.reach = eps, C0 is not None, None if G is None else G.dtype
        return output_of(h), None if C is None else output_of(C), None if n is None else output_of(n)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dh: Tensor | None, dC: Tensor | None, dn: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        q, k, v, u, M, A, W, C, n, write, read, h, by_sum, below, turn = ctx.saved_tensors
        dh = torch.zeros_like(h) if dh is None else dh
        pull = (dh * h).sum(-1).neg_()
        dtop = (dh / below[..., None]).to(v.dtype)
        ds = pull * turn
        dM = (pull * ctx.eps).div_(below)
        db = torch.where(by_sum, 0.0, dM - pull)
        db, dM = db.view_as(u), dM.view_as(u)
        dS = torch.bmm(dtop, v.transpose(1, 2)).to(A.dtype).add_(ds[..., None]).mul_(_decays(u, M, q)).to(q.dtype)
        dk = torch.bmm(dS.transpose(1, 2), q)
        dv = torch.bmm(A.to(v.dtype).transpose(1, 2), dtop)
        if W is None:
            du = (dk * k).sum(-1, dtype=ds.dtype).view_as(u)
            return torch.bmm(dS, k), dk, dv, du, db, dM, *[None] * 7
        before, norm = _before(C, n, v, W)
        r = _reading(read, q)
        dqr = torch.bmm(dtop, before.transpose(1, 2)).addcmul_(ds[..., None].to(q.dtype), norm.transpose(1, 2).to(q.dtype))
        dq = _plus_product(dqr.mul_(r), dS, k)
        qr = q * r
        dC = _grown(dC, torch.bmm(qr.transpose(1, 2), dtop), C, W)
        dn = _grown(dn, torch.bmm(ds[:, None], qr.to(ds.dtype)), n, W)
        back = W.transpose(1, 2)
        dkv, dkn = torch.bmm(back, dC).view(len(q), *before.shape[1:]).to(v.dtype), torch.bmm(back, dn).view(len(q), 1, -1)
        w = write.view(len(k), -1, 1).to(k.dtype)
        dka = torch.bmm(v, dkv.transpose(1, 2)).add_(dkn.to(k.dtype)).mul_(w)
        dk.add_(dka)
        dv = dv.baddbmm_(k * w, dkv)
        du = (dk * k).sum(-1, dtype=ds.dtype).view_as(u)
        dG = (dC * C).sum(-1).add_((dn * n).sum(-1))
        dG[:, : u.shape[1]] -= dka.mul_(k).view(*u.shape[:2], -1).sum(-1, dtype=dG.dtype)
        start = (dC, dn) if ctx.given else (None, None)
        return dq, dk, dv, du, db, dM, dG.to(ctx.reach), None, *start, None, None, None


def _decays(u: Tensor, M: Tensor, q: Tensor) -> Tensor:
    """exp(u_s − M_t)/√D for s ≤ t, else 0: ``X L L``."""
    u, M = (u - 0.5 * math.log(q.shape[-1])).view(len(q), 1, -1), M.view(len(q), -1, 1)
    return (u - M).exp_().tril_()


def _written(k: Tensor, v: Tensor, write: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
    """What each chunk leaves in the memory and in its normaliser: ``Z N D·E`` and ``Z N D``, in the dtype of W."""
    Z, _, N = W.shape
    ka = k * write.view(len(k), -1, 1).to(k.dtype)
    kv = torch.bmm(ka.transpose(1, 2), v).to(W.dtype)
    return kv.view(Z, N, -1), ka.sum(1, dtype=W.dtype).view(Z, N, -1)


def _reading(read: Tensor, q: Tensor) -> Tensor:
    """What q is multiplied with to read the memory, 1/√D included: ``X L 1``."""
    return (read * q.shape[-1] ** -0.5).view(len(q), -1, 1).to(q.dtype)


def _before(C: Tensor, n: Tensor, v: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
    """The memory each chunk reads ``X D E``, in the dtype of v, and its normaliser ``X D 1``."""
    N, D = W.shape[2], n.shape[-1]
    return C[:, :N].reshape(len(v), D, -1).to(v.dtype), n[:, :N].reshape(len(v), D, 1)


def _grown(after: Tensor | None, read: Tensor, like: Tensor, W: Tensor) -> Tensor:
    """Gradient of every row of the memory: what chunks read of it, and what was asked of the state after the last."""
    Z, R, N = W.shape
    read = read.to(like.dtype).view(Z, N, -1)
    if after is None:
        return read if R == N else torch.cat([read, torch.zeros_like(read[:, :1])], 1)
    return torch.cat([after[:, :N] + read, after[:, N:]], 1)


def _plus_product(base: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """base += left · right, in the dtype of ``base``."""
    if left.dtype == base.dtype:
        return base.baddbmm_(left, right)
    return base.add_(torch.bmm(left, right))
