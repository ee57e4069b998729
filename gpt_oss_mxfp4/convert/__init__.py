"""From one layout of a checkpoint to another, in bounded memory, and resumable.

plan -> {decode, original, experts, per_expert} -> layouts -> {shards, source} -> {journal, writer, verify} -> verb:
each imports only what stands left of it. A plan says what every tensor of the output is made of; what writes
files knows nothing of layouts, and what knows layouts touches no file.
"""
