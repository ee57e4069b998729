#!/usr/bin/env bash
# Checks and measures everything that needs a Hopper GPU: exactness first, then speed.
#
#   scripts/gpu_check.sh [FOLDER]
#
# Needs a Python (PYTHON, else python3) with MAX's runtime, NumPy and pytest, this checkout as the working folder, and a
# GPU. FOLDER (results) gets gpu.txt, tests.xml, experts.json and, where MAX's serving extras are installed, what generate
# printed on CPU and GPU. Exits with 1 if a test fails; the benchmark runs all the same.
set -uo pipefail
results=$(realpath -m "${1:-results}")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} MXFP4_GPU_TESTS=1
mkdir -p "$results"

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv > "$results/gpu.txt"
cat "$results/gpu.txt"

failed=0
echo "== tests"
"$python" -m pytest tests/gpu -q --junitxml="$results/tests.xml" || failed=1

echo "== experts of 20b"
"$python" benchmarks/sm90/bench_experts.py --output "$results/experts.json" || failed=1

echo "== the demo model"
if "$python" -c "import max.pipelines, transformers" 2> /dev/null; then
    for device in cpu gpu; do
        "$python" -m gpt_oss_mxfp4 generate --prompt "What is 4587 + 968?" --show-reasoning --devices $device \
            > "$results/generate-$device.txt" || failed=1
        [ "$(tail -n 1 "$results/generate-$device.txt")" = 5555 ] || failed=1
    done
    # The reasoning may hang on a near tie: a CPU computes in float32, a GPU in bfloat16.
    diff "$results/generate-cpu.txt" "$results/generate-gpu.txt"
else
    echo "skipped: MAX's pipelines or transformers are not installed"
fi
exit $failed
