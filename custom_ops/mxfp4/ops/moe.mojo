"""Registers `moe.route`, `moe.group`, `moe.route_and_group` and `moe.combine`."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.gpu.host import DeviceContext
from std.runtime import parallelism_level

from ..gpu.combine import enqueue_combine
from ..gpu.group import enqueue_group
from ..gpu.route import check_routing, enqueue_route
from ..gpu.route_and_group import enqueue_route_and_group
from ..moe.combine import combine_token
from ..moe.group import group_rows
from ..moe.route import route_tokens
from ..pointers import ConstPointer
from .tensors import data, require_dtype, require_equal

comptime _TOKENS_PER_TASK = 16
"""Tokens that are worth a thread of their own in `moe.combine`."""


def _check_top_k(op: StaticString, top_k: Int, experts: Int) raises:
    if top_k < 1 or top_k > experts:
        raise Error(op, ": top_k must be between 1 and ", experts, ", got ", top_k)


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
            If shapes disagree.
        """
        var tokens = logits.shape()[0]
        var experts = logits.shape()[1]
        var top_k = ids.shape()[1]
        comptime op = "moe.route"
        require_equal(op, "ids.shape[0] = tokens", ids.shape()[0], tokens)
        comptime for axis in range(2):
            require_equal(op, "weights.shape = ids.shape", weights.shape()[axis], ids.shape()[axis])
        _check_top_k(op, top_k, experts)
        var logits_data = data(logits)
        var ids_data = data(ids)
        var weights_data = data(weights)
        comptime if target == "cpu":
            route_tokens(logits_data, tokens, experts, top_k, ids_data, weights_data)
        else:
            check_routing(op, experts, top_k)
            enqueue_route(ctx, ids_data, weights_data, logits_data, tokens, experts, top_k)


@extensibility.register("moe.group")
struct Group:
    """Routed rows sorted by expert."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        order: OutputTensor[dtype=DType.int32, rank=1, ...],
        places: OutputTensor[dtype=DType.int32, rank=2, ...],
        offsets: OutputTensor[dtype=DType.int32, rank=1, ...],
        counts: OutputTensor[dtype=DType.int32, rank=1, ...],
        ids: InputTensor[dtype=DType.int32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Sorts routed rows.

        Parameters:
            target: Where the op runs.

        Args:
            order: [P] int32.
            places: [T, k] int32.
            offsets: [E + 1] int32.
            counts: [E] int32, set to zero.
            ids: [T, k] int32.
            ctx: The device.

        Raises:
            If shapes disagree or, on the CPU, an id is out of range; on a GPU such a row gets no place.
        """
        var rows = ids.shape()[0] * ids.shape()[1]
        var experts = offsets.shape()[0] - 1
        require_equal("moe.group", "order.shape[0] = T * k", order.shape()[0], rows)
        require_equal("moe.group", "counts.shape[0] = experts", counts.shape()[0], experts)
        comptime for axis in range(2):
            require_equal(
                "moe.group", "places.shape = ids.shape", places.shape()[axis], ids.shape()[axis]
            )
        comptime if target == "cpu":
            group_rows(
                data(ids), rows, experts, data(order), data(places), data(offsets), data(counts)
            )
        else:
            enqueue_group(
                ctx,
                data(order),
                data(places),
                data(offsets),
                data(counts),
                data(ids),
                rows,
                experts,
            )


@extensibility.register("moe.route_and_group")
struct RouteAndGroup:
    """Both of the above, one after the other."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        ids: OutputTensor[dtype=DType.int32, rank=2, ...],
        weights: OutputTensor[dtype=DType.float32, rank=2, ...],
        order: OutputTensor[dtype=DType.int32, rank=1, ...],
        places: OutputTensor[dtype=DType.int32, rank=2, ...],
        offsets: OutputTensor[dtype=DType.int32, rank=1, ...],
        counts: OutputTensor[dtype=DType.int32, rank=1, ...],
        logits: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Routes each token and sorts routed rows.

        Parameters:
            target: Where the op runs.

        Args:
            ids: [T, k] int32.
            weights: [T, k] float32.
            order: [P] int32.
            places: [T, k] int32.
            offsets: [E + 1] int32.
            counts: [E] int32, set to zero.
            logits: [T, E] float32.
            ctx: The device.

        Raises:
            If shapes disagree.
        """
        comptime op = "moe.route_and_group"
        var tokens = logits.shape()[0]
        var experts = logits.shape()[1]
        var top_k = ids.shape()[1]
        _check_top_k(op, top_k, experts)
        require_equal(op, "ids.shape[0] = tokens", ids.shape()[0], tokens)
        comptime for axis in range(2):
            require_equal(op, "weights.shape = ids.shape", weights.shape()[axis], ids.shape()[axis])
            require_equal(op, "places.shape = ids.shape", places.shape()[axis], ids.shape()[axis])
        require_equal(op, "order.shape[0] = T * k", order.shape()[0], tokens * top_k)
        require_equal(op, "offsets.shape[0] = experts + 1", offsets.shape()[0], experts + 1)
        require_equal(op, "counts.shape[0] = experts", counts.shape()[0], experts)
        comptime if target == "cpu":
            route_tokens(data(logits), tokens, experts, top_k, data(ids), data(weights))
            group_rows(
                rebind[ConstPointer[DType.int32]](data(ids)),
                tokens * top_k,
                experts,
                data(order),
                data(places),
                data(offsets),
                data(counts),
            )
        else:
            check_routing(op, experts, top_k)
            enqueue_route_and_group(
                ctx,
                data(ids),
                data(weights),
                data(order),
                data(places),
                data(offsets),
                data(counts),
                data(logits),
                tokens,
                experts,
                top_k,
            )


@extensibility.register("moe.combine")
struct Combine:
    """Expert outputs summed back into token order, and added to a residual."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        result: OutputTensor[dtype=dtype, rank=2, ...],
        y: InputTensor[dtype=dtype, rank=2, ...],
        places: InputTensor[dtype=DType.int32, rank=2, ...],
        weights: InputTensor[dtype=DType.float32, rank=2, ...],
        residual: InputTensor[dtype=dtype, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Sums each token's experts and its residual.

        Parameters:
            target: Where the op runs.
            dtype: Type of y, the residual and the result.

        Args:
            result: [T, H].
            y: [P, H].
            places: [T, k] int32.
            weights: [T, k] float32.
            residual: [T, H].
            ctx: The device.

        Raises:
            If shapes disagree or, on the CPU, a place is outside 0..P-1; on a GPU such a row is left out.
        """
        comptime op = "moe.combine"
        require_dtype[op, target, dtype]()
        var tokens = weights.shape()[0]
        var top_k = weights.shape()[1]
        var hidden = y.shape()[1]
        require_equal(op, "y.shape[0] = T * k", y.shape()[0], tokens * top_k)
        require_equal(op, "residual.shape[0] = T", residual.shape()[0], tokens)
        require_equal(op, "residual.shape[1] = y.shape[1]", residual.shape()[1], hidden)
        require_equal(op, "result.shape[0] = T", result.shape()[0], tokens)
        require_equal(op, "result.shape[1] = y.shape[1]", result.shape()[1], hidden)
        comptime for axis in range(2):
            require_equal(
                op, "row_places.shape = weights.shape", places.shape()[axis], weights.shape()[axis]
            )
        var places_data = data(places)
        var weights_data = data(weights)
        comptime if target == "cpu":
            for row in range(tokens * top_k):
                var place = Int(places_data[unsafe_offset=row])
                if place < 0 or place >= tokens * top_k:
                    raise Error(
                        op,
                        ": row_places must lie in 0..",
                        tokens * top_k - 1,
                        ", got ",
                        place,
                        " at ",
                        row,
                    )
            var y_data = data(y).unsafe_bitcast[Float32]()
            var residual_data = data(residual).unsafe_bitcast[Float32]()
            var result_data = data(result).unsafe_bitcast[Float32]()
            var threads = max(1, min(parallelism_level(), tokens // _TOKENS_PER_TASK))

            def combine(thread: Int) {imm}:
                for token in range(tokens * thread // threads, tokens * (thread + 1) // threads):
                    combine_token(
                        y_data,
                        places_data.unsafe_offset(token * top_k),
                        weights_data.unsafe_offset(token * top_k),
                        residual_data.unsafe_offset(token * hidden),
                        top_k,
                        hidden,
                        result_data.unsafe_offset(token * hidden),
                    )

            sync_parallelize(combine, threads)
        else:
            enqueue_combine(
                ctx,
                data(result).unsafe_bitcast[BFloat16](),
                data(y).unsafe_bitcast[BFloat16](),
                places_data,
                weights_data,
                data(residual).unsafe_bitcast[BFloat16](),
                tokens,
                top_k,
                hidden,
            )
