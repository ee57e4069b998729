"""A checkpoint folder, checked whole before a byte of weight is read.

{checksums, errors} -> {fields, layout, strict_json, tokenizer} -> {config, index, repository, weight_map} ->
{bounds, content, kinds, own_files, scale_statistics, schema} -> {checkpoint, download, hollow, quantize_dense} ->
{adapt, hub, pack, survey} -> neighbours: each imports only what stands left of it. This file re-exports nothing,
because ``gpt_oss_mxfp4.config`` needs ``errors`` and must not thereby import ``checkpoint``, which needs the config.
"""
