#!/usr/bin/env bash
# Runs the CPU kernels' Mojo tests as an AArch64 CPU would: cross-compiled, linked with Mojo's runtime for AArch64, emulated.
#
#   scripts/aarch64_check.sh [CPU]       CPU: neoverse-n1 if not named, or another that Mojo knows
#
# Needs the environment that `./run setup` makes, a package index, and on Debian the packages qemu-user and
# gcc-aarch64-linux-gnu. Exits with 1 if a test fails; the others run all the same.
set -euo pipefail
case ${1:-} in
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
    -*)
        echo "aarch64_check.sh: there is no option $1; --help tells more" >&2
        exit 2
        ;;
esac
cpu=${1:-neoverse-n1}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

packages=$(sed -nE 's/^((mojo-compiler|max-core)==[^ ;]+).*/\1/p' requirements/runtime.txt)
# shellcheck disable=SC2086 # two words
python3 -m pip download -q --no-deps --only-binary=:all: --platform manylinux_2_34_aarch64 \
    --python-version 3.11 -d "$work" $packages
for wheel in "$work"/*.whl; do
    .venv/bin/python -m zipfile -e "$wheel" "$work/site"
done
libraries=$work/libraries
mkdir "$libraries"
find "$work/site" -path '*/modular/lib/*.so' -exec mv {} "$libraries" \;

failed=0
for test in tests/custom_ops/mxfp4/test_*.mojo tests/custom_ops/mxfp4/cpu/test_*.mojo; do
    echo "== $test"
    .venv/bin/mojo build --target-triple aarch64-unknown-linux-gnu --target-cpu "$cpu" --emit object \
        -I custom_ops "$test" -o "$work/test.o"
    aarch64-linux-gnu-gcc "$work/test.o" -o "$work/test" -L"$libraries" -lm -Wl,--allow-shlib-undefined \
        -lKGENCompilerRTShared -lAsyncRTMojoBindings -lAsyncRTRuntimeGlobals -lMSupportGlobals
    LD_LIBRARY_PATH='' QEMU_LD_PREFIX=/usr/aarch64-linux-gnu \
        qemu-aarch64 -cpu max -E LD_LIBRARY_PATH="$libraries" "$work/test" || failed=1
done
exit $failed
