#!/usr/bin/env bash
# SLURM, one process per GPU. jax finds the other processes and its own GPU through the variables of SLURM.
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh \
#     configs/roberta-base.yaml data.dir=/data/valueeval23 training.batch_size=32
# The number of GPUs must divide training.batch_size.
# All nodes must share the file system of the run folder (output=FOLDER, no URL); a run looks for that first, and says so.
# SLURM sends SIGTERM 90 s before the time limit. A run that trains then saves a checkpoint; submit the same line again
# to resume. A job that was killed outright, or while it predicted, leaves lock.json in the run folder, which another host
# respects: remove it then.
# This script is not yet tested on a cluster.
#SBATCH --job-name=jaxvalues
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@90
#SBATCH --output=%x-%j.log
set -euo pipefail
exec srun --kill-on-bad-exit=1 jaxvalues train "$@" runtime.distributed=true
