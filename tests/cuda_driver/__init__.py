"""Runs PTX on this machine's GPU, through the CUDA driver alone: no toolkit, no package but NumPy.

Its `launch` takes what that of `tests.ptx_emulator` takes, so one test can run on either.

- `driver`: the driver's functions that are used, memory, modules, launches, events.
- `launch`: one launch on copies between guards, in a process that a fault may take down.
- `stand_in`: the same functions without a GPU, over the emulator, to test the two above.

Source of all semantics: CUDA Driver API 13.0, docs.nvidia.com/cuda/cuda-driver-api.
"""
