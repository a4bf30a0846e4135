#!/usr/bin/env bash
# A real Slurm of one node for tests: controller, node daemon and munge as root, in a folder of their own.
#
#   slurm_local.sh up FOLDER      # start; prints the line that lets sbatch find it
#   slurm_local.sh down FOLDER    # cancel, stop what was started, remove the folder
#
# Works without systemd and cgroups (containers). Needs the Debian packages slurmctld slurmd slurm-client
# slurm-wlm-basic-plugins munge. Outside the folder it changes one thing: a host that does not know its own name gets a
# line in /etc/hosts.
#   PORT   of the controller; the next one is the node's (default 16827)
#   CPUS   how many the node says it has (default 4; more than there are is allowed)
set -euo pipefail
what=$1
folder=$2
port=${PORT:-16827}
host=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf

stop() { # pid file, name: only what was started here
  [ -f "$1" ] || return 0
  pid=$(cat "$1")
  [ "$(ps -o comm= -p "$pid" 2>/dev/null || true)" = "$2" ] || return 0
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.05; done
  kill -9 "$pid" 2>/dev/null || true
}

if [ "$what" = down ]; then
  scancel --user root 2>/dev/null || true
  for _ in $(seq 50); do [ -z "$(squeue --noheader 2>/dev/null)" ] && break; sleep 0.1; done
  stop "$folder/slurmd.pid" slurmd
  stop "$folder/slurmctld.pid" slurmctld
  stop "$folder/munge/munged.pid" munged
  rm -rf "$folder"
  exit 0
fi

getent hosts "$host" >/dev/null || echo "127.0.0.1 $host" >>/etc/hosts
mkdir -p "$folder"/{state,spool,log,munge,socket}
chmod 755 "$folder" "$folder/socket"
chmod 700 "$folder/munge"
# A key and a socket of its own, never those of the system.
dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
chmod 400 "$folder/munge/key"
chown -R munge:munge "$folder/munge" "$folder/socket"
setpriv --reuid=munge --regid=munge --clear-groups munged --force --key-file="$folder/munge/key" \
  --socket="$folder/socket/munge" --pid-file="$folder/munge/munged.pid" --log-file="$folder/munge/log" \
  --seed-file="$folder/munge/seed"
cat >"$SLURM_CONF" <<EOF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire: a job that was put back waits that long [s] before it starts again; Slurm's own default is 120.
AuthInfo=socket=$folder/socket/munge,cred_expire=10
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
# No cgroups in a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
# Ports of ranks follow the number of the job: two of these Slurms at once must not give the same ones.
FirstJobId=$((1 + port % 1000 * 60))
# Look every second, not every minute: tests wait for it.
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
# More CPUs than there are.
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
# Between SIGTERM and SIGKILL [s]; Slurm's own default is 30.
KillWait=10
MinJobAge=300
MpiDefault=none
PropagateResourceLimits=NONE
NodeName=$host NodeAddr=127.0.0.1 CPUs=${CPUS:-4} Boards=1 SocketsPerBoard=1 CoresPerSocket=${CPUS:-4} ThreadsPerCore=1 RealMemory=8000 State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
slurmctld -c
for _ in $(seq 400); do scontrol ping 2>/dev/null | grep -q UP && break; sleep 0.05; done
slurmd -N "$host"
for _ in $(seq 400); do sinfo --noheader --format %T 2>/dev/null | grep -qE 'idle|mixed|allocated' && break; sleep 0.05; done
sinfo --noheader --format %T | grep -qE 'idle|mixed|allocated' || { tail -n 20 "$folder"/log/*.log >&2; exit 1; }
echo "export SLURM_CONF=$SLURM_CONF"
