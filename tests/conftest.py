"""Settings of every test, made before torch is imported."""

import os

# OpenMP threads that spin while they wait starve small CPU machines; read when torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

torch.set_num_threads(1)
