#!/usr/bin/env bash
# SLURM: one process per GPU; jax finds its peers, and which GPU is its own, through SLURM's variables.
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh \
#     configs/roberta-base.yaml data.dir=/data/valueeval23 training.batch_size=32
# The rows of a batch must divide evenly over all GPUs.
# The run folder must lie on a file system that all nodes share. SLURM sends SIGTERM 90 s before the time limit: the run
# saves itself, and submitting the same line again goes on from there. Not yet tried on a cluster.
#SBATCH --job-name=jaxvalues
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@90
#SBATCH --output=%x-%j.log
set -euo pipefail
exec srun --kill-on-bad-exit=1 jaxvalues train "$@" runtime.distributed=true
