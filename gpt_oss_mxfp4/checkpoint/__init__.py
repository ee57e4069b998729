"""A checkpoint folder, checked whole before a byte of weight is read.

errors -> {strict_json, fields, layout} -> {config, index, weight_map} -> schema -> checkpoint -> {hub, adapt, survey},
errors -> tokenizer -> survey,
and errors -> {checksums, repository} -> download -> hub -> {neighbours, hollow}; index -> {content, kinds,
scale_statistics}: each imports only what stands left of it. This file re-exports nothing, because
``gpt_oss_mxfp4.config`` needs ``errors`` and must not thereby import ``checkpoint``, which needs
the config.
"""
