#!/usr/bin/env bash
# A Slurm cluster of one machine, to try the profile on (as root, with Slurm and munge installed; for --accounting also
# slurmdbd and MariaDB). All files are in FOLDER but a link, by which jobs that drop SLURM_CONF, as those of Snakemake,
# find their cluster; a machine with a Slurm of its own is refused.
#
#     tests/slurm_node.sh start FOLDER [--accounting]      # starts it anew where it runs already
#     export SLURM_CONF=FOLDER/slurm.conf                  # then sinfo, sbatch and the launcher use it
#     tests/slurm_node.sh stop FOLDER
set -euo pipefail
usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ ${1-} =~ ^(start|stop)$ && -n ${2-} && ${3---accounting} == --accounting ]] || usage
action=$1 accounting=${3-}
[[ $EUID == 0 ]] || { echo "$0: must run as root: slurmd starts jobs as their users" >&2; exit 2; }
mkdir -p "$2/log" "$2/spool"
folder=$(realpath "$2")
export SLURM_CONF=$folder/slurm.conf
link=/run/slurm/conf # where Slurm's commands look after /etc/slurm

stop() { # newest first: the database outlives what writes to it
    [[ ! -e $folder/munged.pid ]] || timeout 20 scancel --user=root 2>/dev/null || true
    for name in slurmd slurmctld slurmdbd mariadbd munged; do
        pid=$(cat "$folder/$name.pid" 2>/dev/null) || continue
        if [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$name" ]]; then # not another process that got its number
            kill "$pid"
            until_true "$name ends" "! kill -0 $pid || grep -q 'State:.*Z' /proc/$pid/status"
        fi
        rm -f "$folder/$name.pid"
    done
    [[ ! $link -ef $folder ]] || rm "$link"
}

until_true() { # what it waits for, a command
    local end=$((SECONDS + 60))
    while ((SECONDS < end)); do if timeout 5 bash -c "$2" >/dev/null 2>&1; then return; fi; sleep 0.1; done
    echo "$0: $1: not within a minute; see $folder/log" >&2
    return 1
}

free_ports() { # as many as asked for, all different
    python3 -c 'import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*[s.getsockname()[1] for s in held])' "$1"
}

stop
[[ $action == start ]] || exit 0
[[ ! -e /etc/slurm/slurm.conf && ! -e $link ]] || { echo "$0: this machine has a Slurm of its own" >&2; exit 2; }
for program in munged slurmctld slurmd ${accounting:+slurmdbd mariadbd}; do
    command -v "$program" >/dev/null || { echo "$0: $program is not installed" >&2; exit 2; }
done
read -r controller node database storage < <(free_ports 4)
host=$(hostname -s)
rm -rf "$folder/spool" "$folder/database"
mkdir -p "$folder/spool"

[[ -e $folder/munge.key ]] || (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged" --seed-file="$folder/munge.seed" 2>>"$folder/log/munged.start"

cat >"$SLURM_CONF" <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$node
SlurmUser=root
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/spool
SlurmdSpoolDir=$folder/spool/slurmd
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000 Gres=gpu:1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
echo "NodeName=$host Name=gpu File=/dev/null" >"$folder/gres.conf" # a file that stands for a device
if [[ $accounting ]]; then
    cat >>"$SLURM_CONF" <<END
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$database
AccountingStoragePass=$folder/munge.socket
JobAcctGatherType=jobacct_gather/none
END
    (umask 077 && cat >"$folder/slurmdbd.conf") <<END
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=$database
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$storage
StorageUser=slurm
StorageLoc=slurm
LogFile=$folder/log/slurmdbd
PidFile=$folder/slurmdbd.pid
END
    mariadb-install-db --no-defaults --user=root --datadir="$folder/database" >"$folder/log/mariadb" 2>&1
    printf '%s\n' "CREATE USER slurm@'%';" "GRANT ALL ON slurm.* TO slurm@'%';" >"$folder/database.sql" # a line each
    mariadbd --no-defaults --user=root --datadir="$folder/database" --socket="$folder/database.socket" \
        --bind-address=127.0.0.1 --port="$storage" --skip-name-resolve --pid-file="$folder/mariadbd.pid" \
        --init-file="$folder/database.sql" >>"$folder/log/mariadb" 2>&1 &
    until_true "the database answers" \
        "mariadb --no-defaults --host=127.0.0.1 --port=$storage --user=slurm --execute='SELECT 1'"
    slurmdbd
    until_true "slurmdbd answers" "sacctmgr --noheader show cluster"
    sacctmgr --immediate add cluster one >/dev/null
    sacctmgr --immediate add account test >/dev/null
    sacctmgr --immediate add user root account=test >/dev/null
fi
slurmctld
slurmd
mkdir -p "$(dirname "$link")"
ln -sfn "$folder" "$link"
until_true "the node is idle" "sinfo --noheader --format=%t | grep -qx idle"
