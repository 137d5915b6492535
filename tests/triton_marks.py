"""Marks of tests that run our Triton kernels on a GPU: ``pytestmark = ON_A_GPU``."""

import pytest
import torch

from models.xlstm.triton import available

ON_A_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or available.why_not() is not None or available.interpreted(),
        reason="needs a CUDA device with Triton, and TRITON_INTERPRET unset",
    ),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset"),
    pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning"),
]
