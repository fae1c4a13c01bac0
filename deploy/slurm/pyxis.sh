#!/usr/bin/env bash
#SBATCH --job-name=finetune-job
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=96G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
# The reference job on Slurm with enroot and its plug-in pyxis:
#
#   export HF_TOKEN=… AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…
#   sbatch deploy/slurm/pyxis.sh
#
# WORK is a folder on a shared file system: models, checkpoints and kernel caches.
set -euo pipefail

IMAGE=${IMAGE:-registry.example.com#finetune-job:0.1.0}
WORK=${WORK:-$HOME/finetune-work}
mkdir -p "$WORK"

export AWS_DEFAULT_REGION=${AWS_DEFAULT_REGION:-us-east-1}
export JOB_MODEL=${JOB_MODEL:-unsloth/gpt-oss-20b}
export JOB_DATASET=${JOB_DATASET:-HuggingFaceH4/Multilingual-Thinking}
export JOB_OUTPUT=${JOB_OUTPUT:-s3://my-bucket/runs}
export JOB_EVAL_FRACTION=${JOB_EVAL_FRACTION:-0.05}
export JOB_MAX_STEPS=${JOB_MAX_STEPS:-60}

# A step of its own, in the background: so that this script takes the signal and passes it on.
srun --container-image="$IMAGE" --no-container-mount-home --container-mounts="$WORK:/work" \
  /opt/venv/bin/python /app/entrypoint.py run &
step=$!
trap 'kill -TERM "$step"' TERM
code=0
wait "$step" || code=$?
if [ "$code" -gt 128 ]; then # `wait` ends when the signal comes; the step does so later
  code=0
  wait "$step" || code=$?
fi

# What another start may mend; it goes on from the newest checkpoint.
case $code in
  69 | 71 | 74 | 75)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then
      scontrol requeue "$SLURM_JOB_ID"
    fi
    ;;
esac
exit "$code"
