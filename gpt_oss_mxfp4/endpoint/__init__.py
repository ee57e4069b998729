"""What makes MAX's OpenAI endpoint speak harmony, whichever way the server is started.

``arch.py`` names :class:`~gpt_oss_mxfp4.endpoint.tokenizer.HarmonyTokenizer`, which renders prompts. Where a server
runs, the tokenizer installs :mod:`~gpt_oss_mxfp4.endpoint.hooks`: there a generation's token ids become reasoning,
answer and calls, by the one parser that ``generate`` has (:mod:`gpt_oss_mxfp4.harmony`). NOTES N60 says why MAX's own
hooks do not suffice.
"""
