#!/bin/sh
# An assembler for MAX (MODULAR_NVPTX_COMPILER_PATH) that leaves PTX as it is, for the driver to run: INPUT -o OUTPUT.
case $1 in
    --version) echo "Cuda compilation tools, release 13.0, V13.0.88" ;;
    *) cp "$1" "$3" ;;
esac
