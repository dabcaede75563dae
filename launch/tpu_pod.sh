#!/usr/bin/env bash
# Cloud TPU pod slice: the same command on every host; jax finds the hosts through the TPU runtime.
#   TPU=my-slice ZONE=us-central2-b launch/tpu_pod.sh configs/paper/roberta-large-multi-head.yaml
# The rows of a batch (that recipe has 8) must divide evenly over data × fsdp chips: give training.batch_size=N for more.
# The run folder must lie on a file system that all hosts share (output=...).
# jaxvalues must be installed on each host (pip install 'jaxvalues[tpu]'), and configs and data lie at the same paths.
# Not yet tried on a pod.
set -euo pipefail
: "${TPU:?set TPU to the name of the slice}" "${ZONE:?set ZONE to its zone}"
printf -v command '%q ' jaxvalues train "$@" runtime.distributed=true
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$command"
