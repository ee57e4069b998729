"""The model in slow NumPy float64, written from the specifications: what every fast part is compared with.

Nothing here imports the package under test, so an error in one cannot hide in the other.

- `mxfp4`: the number format, both directions.
- `bfloat16`: rounding to bfloat16, which NumPy has no type for.
- `moe`: routing, grouping and the experts.
- `attention`: YaRN, rotation, attention with sinks and a window.
- `model`: the whole model, with every stage's result.
"""
