#!/usr/bin/env bash
# A study as an array of SLURM jobs on one shared disk: each job runs its share of the trials and runs.
#
#     sbatch --array=1-8 launch/slurm_study.sh configs/studies/methods-minilm.yaml data.dir=FOLDER model.path=FOLDER
#
# Send the same command again for what is not finished: a job that was stopped resumes, finished runs are kept, and runs
# that waited for trials of other jobs start. Each job ends with a report of whatever is finished by then;
# `jaxvalues report STUDY_FOLDER` makes it again. Each job is one process on one machine. The command that this script
# runs is tested; the script itself is not yet tested on a cluster.
#SBATCH --job-name=jaxvalues-study
#SBATCH --nodes=1
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail

study=${1:?"usage: sbatch --array=1-N launch/slurm_study.sh STUDY [KEY=VALUE ...]"}
shift
count=${SLURM_ARRAY_TASK_COUNT:?"start it as an array: sbatch --array=1-N ..."}
number=$((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-1} + 1))

# bash passes the signal on, and waits until the run has saved its checkpoint and ended.
jaxvalues compare "$study" "$@" --part "$number/$count" &
run=$!
trap 'kill -TERM $run' TERM INT
wait $run && status=0 || status=$?
while kill -0 $run 2>/dev/null; do wait $run && status=0 || status=$?; done
exit $status
