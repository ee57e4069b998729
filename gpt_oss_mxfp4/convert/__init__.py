"""From one layout of a checkpoint to another, in bounded memory, and resumable.

A plan says what every tensor of the output is made of; what writes files knows nothing of layouts, and what knows
layouts touches no file: {plan, decode} -> {original, experts, per_expert, configs} -> layouts -> conversion
and plan -> shards -> {journal, source, companions} -> writer -> {making, report} -> verb, of which making and report
join the two. Each imports only what stands left of it.
"""
