"""From one layout of a checkpoint to another, in bounded memory, and resumable.

A plan says what every tensor of the output is made of; what writes files knows nothing of layouts, and what knows
layouts touches no file. Each imports only what stands left of it:
{plan, decode} -> {original, experts, per_expert, expected, configs} -> layouts -> conversion;
plan -> {shards, source, journal} -> {writer, report, companions} -> making -> verb, which joins the two.
"""
