#!/usr/bin/env bash
# One machine with any number of GPUs or TPU chips. One process uses all of them.
#   launch/one_machine.sh configs/roberta-base.yaml data.dir=/data/valueeval23 seed=1
# To try a sharded run without accelerators, simulate devices:
#   XLA_FLAGS=--xla_force_host_platform_device_count=8 launch/one_machine.sh configs/quickstart.yaml mesh.fsdp=2
# Compiling for a GPU takes long, much of it autotuning. To leave that out (docs/benchmarks.md, NVIDIA H200):
#   XLA_FLAGS="--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false" launch/one_machine.sh CONFIG
set -euo pipefail
exec jaxvalues train "$@"
