"""Runs PTX without a GPU: what the compiler made of a Hopper kernel, instruction by instruction, one block at a time.

It takes the text that Mojo emits for sm_90a and gives what the block would leave in memory. Warps, copies and tensor
cores take their turns in a random, seeded order, so that a missing wait shows; an instruction that it does not know
is an error. It knows nothing of how fast anything is.

    program = parse_program(ptx)
    memory = GlobalMemory()
    x = memory.add("x", np.zeros(64, np.float32))
    Block(program, memory, [x], threads=128).run()

- `program`: text to instructions.
- `memory`: global buffers with nothing between them, and shared memory that remembers who wrote what.
- `block`: registers, branches, barriers, whose turn it is.
- `arithmetic`: what computes in registers.
- `transfers`: loads, stores, asynchronous copies and the barriers they arrive at.
- `tensor_core`: wgmma.
- `launch`: a grid of blocks.

Source of all semantics: PTX ISA 9.0, docs.nvidia.com/cuda/parallel-thread-execution.
"""
