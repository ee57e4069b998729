"""Top-k of router logits and the softmax over those k."""

from std.math import exp

from ..pointers import ConstPointer


def route_tokens(
    logits: ConstPointer[DType.float32],
    tokens: Int,
    experts: Int,
    top_k: Int,
    ids: MutPointer[Int32, MutUntrackedOrigin],
    weights: MutPointer[Float32, MutUntrackedOrigin],
):
    """Routes tokens one after the other.

    Args:
        logits: [tokens, experts] float32.
        tokens: T.
        experts: E, at least top_k.
        top_k: Experts per token, k.
        ids: [tokens, k] int32.
        weights: [tokens, k] float32.
    """
    for token in range(tokens):
        route_token(
            logits.unsafe_offset(token * experts),
            experts,
            top_k,
            ids.unsafe_offset(token * top_k),
            weights.unsafe_offset(token * top_k),
        )


def route_token(
    logits: ConstPointer[DType.float32],
    experts: Int,
    top_k: Int,
    ids: MutPointer[Int32, MutUntrackedOrigin],
    weights: MutPointer[Float32, MutUntrackedOrigin],
):
    """Picks one token's experts, largest logit first, ties to the lower id, and weighs them.

    `weights[j] = exp(logit_j - logit_0) / sum_i exp(logit_i - logit_0)` over the picked k alone. Ids stay
    valid and distinct whatever the logits; which experts a NaN among them picks is unspecified.

    Args:
        logits: [experts] float32.
        experts: E, at least top_k.
        top_k: Experts per token, k.
        ids: [k] int32.
        weights: [k] float32.
    """
    for j in range(top_k):
        var best = -1
        for expert in range(experts):
            var taken = False
            for i in range(j):
                taken = taken or Int(ids[unsafe_offset=i]) == expert
            if taken:
                continue
            if best < 0 or logits[unsafe_offset=expert] > logits[unsafe_offset=best]:
                best = expert
        ids[unsafe_offset=j] = Int32(best)
    var largest = logits[unsafe_offset=Int(ids[unsafe_offset=0])]
    var total = Float32(0)
    for j in range(top_k):
        var weight = exp(logits[unsafe_offset=Int(ids[unsafe_offset=j])] - largest)
        weights[unsafe_offset=j] = weight
        total += weight
    for j in range(top_k):
        weights[unsafe_offset=j] /= total
