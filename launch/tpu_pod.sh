#!/usr/bin/env bash
# Cloud TPU pod slice. Every host runs the same command; jax finds the other hosts through the TPU runtime.
#   TPU=my-slice ZONE=us-central2-b launch/tpu_pod.sh configs/paper/roberta-large-multi-head.yaml
# The number of data × fsdp chips must divide training.batch_size, which is 8 in that config: set training.batch_size=N.
# All hosts must share the file system of the run folder (output=FOLDER, no URL); a run looks for that first, and says so.
# SIGTERM to one host stops all of them, with a checkpoint; the same command resumes. A run that was killed outright leaves
# lock.json in its folder, which another host respects: remove it then.
# Each host needs jaxvalues (pip install 'jaxvalues[tpu]'), and the configs and data at the same paths.
# This script is not yet tested on a pod.
set -euo pipefail
: "${TPU:?set TPU to the name of the slice}" "${ZONE:?set ZONE to its zone}"
printf -v command '%q ' jaxvalues train "$@" runtime.distributed=true
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$command"
