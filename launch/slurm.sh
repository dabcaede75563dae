#!/usr/bin/env bash
# SLURM: one process per node, which drives all GPUs of its node; jax finds its peers through SLURM's own variables.
#   sbatch --nodes=4 --gpus-per-node=8 launch/slurm.sh configs/roberta-base.yaml data.dir=/data/valueeval23
# The run folder must lie on a file system that all nodes share. SLURM sends SIGTERM 90 s before the time limit: the run
# saves itself, and submitting the same line again goes on from there.
#SBATCH --job-name=jaxvalues
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@90
#SBATCH --output=%x-%j.log
set -euo pipefail
exec srun --kill-on-bad-exit=1 jaxvalues train "$@" runtime.distributed=true
