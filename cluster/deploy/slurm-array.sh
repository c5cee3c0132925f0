#!/bin/bash
# A job on Slurm that uses as many machines as the queue gives: element 0 of the array runs Ray's head and the command,
# the others join as workers whenever they start. Elements may be preempted and requeued at any time.
#
#   sbatch --array=0-15 slurm-array.sh python -P -m factory.render --source objaverse --out /shared/mv-video
#
# Submitted again after a failure, it resumes. The folder SHARED (default: ~/.menagerie) must be visible to all machines.
#SBATCH --job-name=menagerie
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=3G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=menagerie-%A_%a.log
set -euo pipefail
[ $# -gt 0 ] || { echo "slurm-array.sh: expected the command to run, such as python -P -m factory.render …" >&2; exit 2; }

job=${SLURM_ARRAY_JOB_ID:?submit this script with sbatch --array=0-N} element=${SLURM_ARRAY_TASK_ID:?}
shared=${SHARED:-$HOME/.menagerie}/$job
ip=${NODE_IP:-$(hostname --ip-address | cut -d' ' -f1)}
cpus=${SLURM_CPUS_PER_TASK:-1} gpus=${SLURM_GPUS_ON_NODE:-0}
# Machines may be shared with other jobs, so every element gets a range of 100 ports of its own between 20000 and 59900.
base=$((20000 + (job * 31 + element) % 400 * 100))
umask 077 # the token is the key to the cluster
mkdir -p "$shared"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$shared/token
temp=$(mktemp -d /tmp/menagerie.XXXXXX) # short: Ray puts sockets there
ports="--node-manager-port=$((base + 1)) --object-manager-port=$((base + 2)) --dashboard-agent-grpc-port=$((base + 3))
  --dashboard-agent-listen-port=$((base + 4)) --runtime-env-agent-port=$((base + 5)) --metrics-export-port=$((base + 6))
  --min-worker-port=$((base + 10)) --max-worker-port=$((base + 99))"
export AUTOSCALER_METRIC_PORT=$((base + 7)) DASHBOARD_METRIC_PORT=$((base + 8)) # of the head

ray_pid=
finish() {
  [ -z "$ray_pid" ] || { kill "$ray_pid" 2>/dev/null; wait "$ray_pid" 2>/dev/null; } || true
  [ "$element" != 0 ] || rm -f "$shared/address"
  rm -rf "$temp"
}
trap finish EXIT
trap 'exit 143' TERM INT

start_head() { # a few attempts: Ray gives up after 30 s, which is too short on a busy machine
  for attempt in 1 2 3; do
    ray start --head --block --node-ip-address="$ip" --port="$base" --num-cpus="$cpus" --num-gpus="$gpus" \
      --ray-client-server-port=$((base + 9)) --include-dashboard=false --temp-dir="$temp" --disable-usage-stats $ports > "$shared/head.log" 2>&1 &
    ray_pid=$!
    while kill -0 "$ray_pid" 2>/dev/null; do
      ray health-check --address "$ip:$base" > /dev/null 2>&1 && return
      sleep 1
    done
  done
  echo "slurm-array.sh: Ray did not start on $ip:" >&2
  cat "$shared/head.log" >&2
  exit 1
}

if [ "$element" = 0 ]; then
  [ -s "$RAY_AUTH_TOKEN_PATH" ] || head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH"
  start_head
  echo "$ip:$base" > "$shared/address.new" && mv "$shared/address.new" "$shared/address"
  code=0
  RAY_ADDRESS=$ip:$base "$@" || code=$?
  echo "$code" > "$shared/exit-code"
  exit "$code"
fi

# A worker: join every head that appears, until the command has ended.
while [ ! -e "$shared/exit-code" ]; do
  [ -s "$shared/address" ] || { sleep 2; continue; }
  ray start --block --address="$(cat "$shared/address")" --node-ip-address="$ip" --num-cpus="$cpus" \
    --num-gpus="$gpus" $ports > "$shared/worker-$element.log" 2>&1 &
  ray_pid=$!
  while kill -0 "$ray_pid" 2>/dev/null && [ ! -e "$shared/exit-code" ]; do sleep 2; done
  kill "$ray_pid" 2>/dev/null || true
  wait "$ray_pid" 2>/dev/null || true
  ray_pid=
  [ -e "$shared/exit-code" ] || { # the head is gone, or Ray did not start: the log says which
    echo "slurm-array.sh: Ray ended on $ip: $(grep -v '^ *$' "$shared/worker-$element.log" | tail -n 1)" >&2
    sleep 5
  }
done
