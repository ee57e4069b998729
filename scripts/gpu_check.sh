#!/usr/bin/env bash
# Checks and measures everything that needs a Hopper GPU: exactness first, then speed.
#
#   [SYNTHETIC=FOLDER] [PRECOMPILED=FOLDER] scripts/gpu_check.sh [RESULTS]
#
# First the kernels alone, tested and timed through the NVIDIA driver: for that much a Python (PYTHON, else python3)
# with NumPy and pytest will do, and Mojo beside it or MXFP4_PTX, a folder that `python -m tests.custom_ops.mxfp4.ptx
# FOLDER` has written on another machine. The rest needs MAX's runtime. RESULTS (./results) gets gpu.txt, kernels.xml,
# kernels.txt and kernels.json, attention.txt and attention.json, dense.txt and dense.json, tests.xml, sanitizer.txt
# where CUDA's compute-sanitizer is, experts.json, triton_experts.json where TRITON_PYTHON (else PYTHON) has torch,
# Triton and triton_kernels, and, where MAX's serving extras are installed, what generate printed on CPU and GPU, and
# device-graphs-max.txt and device-graphs-sm90.txt, which say where device graphs of several sequences part from steps
# without them, by either dense kernel. SYNTHETIC is a 20b checkpoint from scripts/make_synthetic.py, to be run as
# well, and measured by MAX's attention and dense matmuls, by our attention, one long sequence also with device
# graphs, by our dense matmuls, and by the one kernel for both matmuls of experts (bench-max.json,
# bench-attention.json, bench-long-attention--device-graphs.json, bench-dense.json, bench-mlp.json). What
# `gpt-oss-mxfp4 compile --target cuda:sm_90a` has written of the same models elsewhere spares the GPU's host
# compiling, where it is: PRECOMPILED/demo and synthetic-max, with MXFP4_ATTENTION_KERNEL=sm90 synthetic-attention,
# with MXFP4_DENSE_KERNEL=sm90 synthetic-dense and demo-dense, with MXFP4_GROUPED_KERNEL=sm90_mlp synthetic-mlp.
# Exits with 1 if a check fails; what comes behind it runs all the same.
set -uo pipefail
case ${1:-} in
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
    -*)
        echo "gpu_check.sh: there is no option $1; --help tells more" >&2
        exit 2
        ;;
esac
results=$(realpath -m "${1:-results}")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} MXFP4_GPU_TESTS=1
mkdir -p "$results"

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv > "$results/gpu.txt"
cat "$results/gpu.txt"

# Says where to run, and for a GPU what is compiled already.
on() {
    echo "--devices $1"
    [ "$1" = gpu ] && [ -d "${PRECOMPILED:-}/$2" ] && echo "--precompiled $PRECOMPILED/$2"
}

failed=0
echo "== kernels"
"$python" -m pytest tests/custom_ops/mxfp4/sm90/test_grouped_matmul.py tests/custom_ops/mxfp4/sm90/test_grouped_mlp.py \
    tests/custom_ops/mxfp4/sm90/test_schedule.py tests/custom_ops/mxfp4/sm90/test_attention.py \
    tests/custom_ops/mxfp4/sm90/test_dense.py tests/custom_ops/mxfp4/gpu/test_kernels.py -q \
    --junitxml="$results/kernels.xml" || failed=1
# A kernel that never ends would wait for itself.
timeout -k 5 300 "$python" benchmarks/sm90/bench_kernels.py --output "$results/kernels.json" \
    | tee "$results/kernels.txt" || failed=1
timeout -k 5 120 "$python" benchmarks/sm90/bench_attention.py --output "$results/attention.json" \
    | tee "$results/attention.txt" || failed=1
timeout -k 5 120 "$python" benchmarks/sm90/bench_dense.py --output "$results/dense.json" \
    | tee "$results/dense.txt" || failed=1

if ! "$python" -c "import max.driver" 2> /dev/null; then
    echo "skipped: MAX's runtime is not installed"
    exit $failed
fi
echo "== tests"
"$python" -m pytest tests/gpu -q --junitxml="$results/tests.xml" || failed=1

if command -v compute-sanitizer > /dev/null; then
    echo "== compute-sanitizer"
    compute-sanitizer --error-exitcode 1 "$python" -m pytest tests/gpu -q -k "routing or combine or sizes_of_20b" \
        > "$results/sanitizer.txt" || failed=1
    # The kernels are launched by a process of the tests' own.
    compute-sanitizer --target-processes all --error-exitcode 1 \
        "$python" -m pytest tests/custom_ops/mxfp4/sm90/test_attention.py -q >> "$results/sanitizer.txt" || failed=1
    tail -n 3 "$results/sanitizer.txt"
fi

echo "== experts of 20b"
"$python" benchmarks/sm90/bench_experts.py --output "$results/experts.json" || failed=1

echo "== the same by Triton's kernels"
ours=()
[ -f "$results/experts.json" ] && ours=(--ours "$results/experts.json")
"${TRITON_PYTHON:-$python}" benchmarks/sm90/triton_experts.py "${ours[@]}" --output "$results/triton_experts.json" || failed=1

echo "== the demo model"
if "$python" -c "import max.pipelines, transformers" 2> /dev/null; then
    for device in cpu gpu; do
        "$python" -m gpt_oss_mxfp4 generate --prompt "What is 4587 + 968?" --show-reasoning $(on $device demo) \
            > "$results/generate-$device.txt" || failed=1
        [ "$(tail -n 1 "$results/generate-$device.txt")" = 5555 ] || failed=1
    done
    # The reasoning may hang on a near tie: a CPU computes in float32, a GPU in bfloat16.
    diff "$results/generate-cpu.txt" "$results/generate-gpu.txt"
    "$python" -m gpt_oss_mxfp4 generate --prompt "What is 4587 + 968?" --show-reasoning $(on gpu demo) --device-graphs \
        | cmp - "$results/generate-gpu.txt" || failed=1
    for dense in max sm90; do
        [ $dense = max ] && compiled=demo || compiled=demo-dense
        for alone in "" --alone; do
            MXFP4_DENSE_KERNEL=$dense timeout -k 5 300 "$python" scripts/check_device_graphs.py $alone \
                $(on gpu $compiled | grep -o -e "--precompiled .*") > "$results/device-graphs-$dense$alone.txt" 2>&1 \
                || { echo "device graphs of several sequences differ: device-graphs-$dense$alone.txt"; failed=1; }
        done
    done
    if [ -n "${SYNTHETIC:-}" ]; then
        echo "== synthetic 20b"
        for device in cpu gpu; do
            # Its text means nothing; beside it stand the tokens per second.
            "$python" -m gpt_oss_mxfp4 generate --model "$SYNTHETIC" --raw --prompt "The keeper of the lighthouse" \
                --max-new-tokens 64 $(on $device synthetic-max) > "$results/synthetic-$device.txt" \
                2> "$results/synthetic-$device.log" || failed=1
            tail -n 1 "$results/synthetic-$device.log"
        done
        cmp "$results/synthetic-cpu.txt" "$results/synthetic-gpu.txt"
        for ours in max attention dense mlp; do
            case $ours in
                max) kernels=(MXFP4_GROUPED_KERNEL=sm90) ;; # the default
                mlp) kernels=(MXFP4_GROUPED_KERNEL=sm90_mlp) ;;
                *) kernels=("MXFP4_${ours^^}_KERNEL=sm90") ;;
            esac
            timeout -k 5 300 env "${kernels[@]}" "$python" -m gpt_oss_mxfp4 bench --model "$SYNTHETIC" $(on gpu synthetic-$ours) \
                --batch 1 4 16 64 --prompt-tokens 2048 --json "$results/bench-$ours.json" || failed=1
            case $ours in dense | mlp) continue ;; esac
            for graphs in "" --device-graphs; do
                timeout -k 5 300 env "${kernels[@]}" "$python" -m gpt_oss_mxfp4 bench --model "$SYNTHETIC" \
                    $(on gpu synthetic-$ours) $graphs --batch 1 --prompt-tokens 32768 \
                    --json "$results/bench-long-$ours$graphs.json" || failed=1
            done
        done
    fi
else
    echo "skipped: MAX's pipelines or transformers are not installed"
fi
exit $failed
