"""The mLSTM cell as our own Triton kernels, forward and backward; imported where it is asked for, as not every machine has Triton."""
