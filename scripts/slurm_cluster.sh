#!/usr/bin/env bash
# A small SLURM cluster on this machine, to try things on: two nodes in name, no systemd, no cgroups. For root on Debian.
#   scripts/slurm_cluster.sh up FOLDER     start it; say which SLURM_CONF to export
#   scripts/slurm_cluster.sh down FOLDER   end it
# Packages: slurmctld slurmd slurm-client munge
# Settings, by environment: NODES (2), CPUS a node (4; more than there are does no harm), GRACE seconds before a preempted job is
# killed (20), PORT of the controller, the nodes' following it (18800).
# Partitions: "low" (the default), whose jobs "high" preempts and requeues.
set -euo pipefail
action="${1:-}" folder="${2:-}"
[ -n "$folder" ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
nodes="${NODES:-2}" cpus="${CPUS:-4}" grace="${GRACE:-20}" port="${PORT:-18800}"
export SLURM_CONF="$folder/slurm.conf"

configure() {
  mkdir -p "$folder/state"
  cat >"$SLURM_CONF" <<CONF
ClusterName=trial
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
# else a requeued job waits two minutes for its old credential to expire
AuthInfo=cred_expire=5
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdSpoolDir=$folder/spool.%n
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmdLogFile=$folder/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
# a node that is silent for so many seconds is lost
SlurmdTimeout=15
# a time limit and a cancellation kill this many seconds after they asked
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
CONF
  for number in $(seq "$nodes"); do
    mkdir -p "$folder/spool.n$number"
    echo "NodeName=n$number NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + number)) CPUs=$cpus RealMemory=1000"
  done >>"$SLURM_CONF"
  {
    echo "PartitionName=low Nodes=ALL Default=YES State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=$grace"
    echo "PartitionName=high Nodes=ALL State=UP PriorityTier=9 PreemptMode=OFF"
  } >>"$SLURM_CONF"
}

until_true() { # seconds, command
  local tries=$(($1 * 5))
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "this did not come true in time: $*" >&2; return 1; }
    sleep 0.2
  done
}

all_idle() { [ "$(sinfo --noheader --Node --partition=low --states=idle --format=%N | wc -l)" = "$nodes" ]; }

up() {
  configure
  if ! munge --no-input >/dev/null 2>&1; then
    install -d -o munge -g munge -m 755 /run/munge # munged trusts no folder of somebody else
    runuser -u munge -- munged
    touch "$folder/munge.ours"
    until_true 10 munge --no-input
  fi
  slurmctld -c -f "$SLURM_CONF"
  for number in $(seq "$nodes"); do slurmd -c -N "n$number" -f "$SLURM_CONF"; done
  until_true 30 all_idle
  echo "export SLURM_CONF=$SLURM_CONF"
}

down() {
  [ -s "$SLURM_CONF" ] || return 0
  timeout 10 scancel --user=root || true
  until_true 20 sh -c '[ -z "$(squeue --noheader)" ]' || true
  for file in "$folder"/slurmd.*.pid "$folder/slurmctld.pid"; do
    [ -s "$file" ] || continue
    pid="$(cat "$file")"
    kill "$pid" 2>/dev/null || continue
    until_true 10 sh -c "! kill -0 $pid" || true
  done
  if [ -e "$folder/munge.ours" ] && [ -s /run/munge/munged.pid ]; then kill "$(cat /run/munge/munged.pid)" || true; fi
}

case "$action" in
  up) up ;;
  down) down ;;
  *) echo "$action: up or down" >&2; exit 2 ;;
esac
