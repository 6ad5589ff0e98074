#!/usr/bin/env bash
# One machine with several GPUs: pre-training that starts again by itself where a process is lost.
#
#   bash one_node.sh IMAGES RUN [options of lamina pretrain]
#
# IMAGES is a folder of images (or anything else that `lamina pretrain` reads), RUN the folder of the run. The
# same command goes on with a run that was stopped. GPUS is the number of processes: by default all GPUs.
set -euo pipefail

images=${1:?give the images}
run=${2:?give the folder of the run}
shift 2
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}

# A process that is killed ends the others; torchrun starts all of them anew, up to three times, and --resume
# goes on from the newest checkpoint.
exec torchrun --standalone --nproc-per-node "$gpus" --max-restarts 3 -m \
    lamina pretrain "$images" --out "$run" --resume --train.checkpoint-every-seconds 600 "$@"
