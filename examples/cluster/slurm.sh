#!/usr/bin/env bash
# Several machines by SLURM: before its time is over the job saves a checkpoint and queues itself again.
#
#   sbatch --nodes 4 slurm.sh IMAGES RUN [options of lamina pretrain]
#
# IMAGES and RUN are on a disk that all machines see. Change the lines of #SBATCH to what your cluster has: one
# task for each GPU.
#SBATCH --job-name=lamina
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.txt
# 180 seconds before the end of the time SLURM sends USR1 to the tasks (without "B:", not to this script):
# lamina saves the step that it is at, and ends with 75.
#SBATCH --signal=USR1@180
set -uo pipefail

images=${1:?give the images}
run=${2:?give the folder of the run}
shift 2

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=${MASTER_PORT:-29500}
export MASTER_ADDR MASTER_PORT

# What torchrun would tell each process, SLURM knows of each task. So signals and exit codes pass unchanged.
# --resume starts a run that is not there yet, and goes on with one that is.
code=0
srun --kill-on-bad-exit=0 bash -c '
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS
    export LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
    exec lamina "$@"
' lamina pretrain "$images" --out "$run" --resume --train.checkpoint-every-seconds 600 "$@" || code=$?

# 75: interrupted, with everything saved. Any other code is the end, good or bad.
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
