"""Tree attention: Triton kernels, their launcher and PyTorch references."""
