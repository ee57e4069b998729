"""A checkpoint folder, checked whole before a byte of weight is read.

errors -> {strict_json, fields, layout, repository, checksums, tokenizer} -> {config, index, weight_map, download} ->
{bounds, schema, content, kinds, scale_statistics} -> {checkpoint, hub, hollow} -> {adapt, pack, survey, neighbours}:
each imports only what stands left of it, and quantize_dense none of them. This file re-exports nothing, because
``gpt_oss_mxfp4.config`` needs ``errors`` and must not thereby import ``checkpoint``, which needs the config.
"""
