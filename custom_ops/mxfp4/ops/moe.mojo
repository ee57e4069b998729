"""Registers `moe.route`, `moe.group` and `moe.combine`."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.runtime import parallelism_level

from ..moe.combine import combine_token, invert_order
from ..moe.group import group_rows
from ..moe.route import route_token
from .tensors import data, require_cpu, require_equal

comptime _TOKENS_PER_TASK = 16
"""Tokens worth a thread of their own in `moe.combine`."""


@extensibility.register("moe.route")
struct Route:
    """Top-k of router logits and the softmax over those k."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        ids: OutputTensor[dtype=DType.int32, rank=2, ...],
        weights: OutputTensor[dtype=DType.float32, rank=2, ...],
        logits: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Routes each token.

        Parameters:
            target: Where the op runs.

        Args:
            ids: [T, k] int32.
            weights: [T, k] float32.
            logits: [T, E] float32.
            ctx: The device.

        Raises:
            Shapes that disagree.
        """
        require_cpu["moe.route", target]()
        var tokens = logits.shape()[0]
        var experts = logits.shape()[1]
        var top_k = ids.shape()[1]
        require_equal("moe.route", "ids.shape[0] = tokens", ids.shape()[0], tokens)
        if top_k > experts:
            raise Error("moe.route: top_k must be at most ", experts, ", got ", top_k)
        var logits_data = data(logits)
        var ids_data = data(ids)
        var weights_data = data(weights)
        for token in range(tokens):
            route_token(
                logits_data.unsafe_offset(token * experts),
                experts,
                top_k,
                ids_data.unsafe_offset(token * top_k),
                weights_data.unsafe_offset(token * top_k),
            )


@extensibility.register("moe.group")
struct Group:
    """Routed rows sorted by expert."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        order: OutputTensor[dtype=DType.int32, rank=1, ...],
        offsets: OutputTensor[dtype=DType.int32, rank=1, ...],
        ids: InputTensor[dtype=DType.int32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Sorts routed rows.

        Parameters:
            target: Where the op runs.

        Args:
            order: [P] int32.
            offsets: [E + 1] int32.
            ids: [T, k] int32.
            ctx: The device.

        Raises:
            Shapes that disagree, or an id out of range.
        """
        require_cpu["moe.group", target]()
        var rows = ids.shape()[0] * ids.shape()[1]
        require_equal("moe.group", "order.shape[0] = T * k", order.shape()[0], rows)
        group_rows(data(ids), rows, offsets.shape()[0] - 1, data(order), data(offsets))


@extensibility.register("moe.combine")
struct Combine:
    """Expert outputs summed back into token order."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        result: OutputTensor[dtype=DType.float32, rank=2, ...],
        y: InputTensor[dtype=DType.float32, rank=2, ...],
        order: InputTensor[dtype=DType.int32, rank=1, ...],
        weights: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Sums each token's experts.

        Parameters:
            target: Where the op runs.

        Args:
            result: [T, H] float32.
            y: [P, H] float32.
            order: [P] int32.
            weights: [T, k] float32.
            ctx: The device.

        Raises:
            Shapes that disagree, or an order that is no permutation.
        """
        require_cpu["moe.combine", target]()
        var tokens = weights.shape()[0]
        var top_k = weights.shape()[1]
        var hidden = y.shape()[1]
        require_equal("moe.combine", "y.shape[0] = T * k", y.shape()[0], tokens * top_k)
        require_equal(
            "moe.combine",
            "row_order.shape[0] = T * k",
            order.shape()[0],
            tokens * top_k,
        )
        var places = invert_order(data(order), tokens * top_k)
        var places_data = places.unsafe_ptr().as_imm().unsafe_origin_cast[ImmUntrackedOrigin]()
        var y_data = data(y)
        var weights_data = data(weights)
        var result_data = data(result)
        var threads = max(1, min(parallelism_level(), tokens // _TOKENS_PER_TASK))

        def combine(thread: Int) {imm}:
            for token in range(tokens * thread // threads, tokens * (thread + 1) // threads):
                combine_token(
                    y_data,
                    places_data.unsafe_offset(token * top_k),
                    weights_data.unsafe_offset(token * top_k),
                    top_k,
                    hidden,
                    result_data.unsafe_offset(token * hidden),
                )

        if threads == 1:
            combine(0)
        else:
            sync_parallelize(combine, threads)
        _ = places^
