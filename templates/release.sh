# Takes a cluster's SLURM off a machine that stays: POSIX sh, run as root.
# Arguments: the cluster's id, the machine's roles. Prints "jobs N" for the jobs that were cancelled.
# Packages, the account of the jobs and all that is in its home stay.
set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
id=$1 roles=$2 state=/var/lib/clusterkit

# Another cluster's by now, or never ours: nothing to do.
[ -e "$state/cluster" ] || exit 0
read -r claimed _ < "$state/cluster"
[ "$claimed" = "$id" ] || exit 0
exec 9> /run/clusterkit.lock
flock -w 300 9 || { echo "another set-up has been running here for 300 s" >&2; exit 1; }

written() { head -n 1 "$1" 2>/dev/null | grep -q 'Written by clusterkit'; }

case " $roles " in
  *" head "*)
    if systemctl --quiet is-active slurmctld; then
      jobs=$(squeue --noheader --format=%A 2>/dev/null | sort -u | wc -l)
      if [ "$jobs" -gt 0 ]; then
        squeue --noheader --format=%A | sort -u | xargs -r scancel
        tries=60 # SLURM tells nobody that its queue is empty; KillWait is ten seconds
        while [ "$(squeue --noheader 2>/dev/null | wc -l)" -gt 0 ] && [ "$tries" -gt 0 ]; do
          tries=$((tries - 1))
          sleep 0.25
        done
      fi
      echo "jobs $jobs"
    fi
    ;;
esac

# Steps outlive their slurmd, as part of its unit.
systemctl kill --signal=KILL slurmd 2>/dev/null || :
for unit in slurmd slurmctld slurmdbd munge; do
  systemctl --quiet disable --now "$unit" 2>/dev/null || :
  rm -f "/etc/systemd/system/$unit.service.d/clusterkit.conf"
  rmdir "/etc/systemd/system/$unit.service.d" 2>/dev/null || :
done

if [ -e /etc/slurm/slurmdbd.conf ] && systemctl --quiet is-active mariadb; then
  others=$(mariadb --batch --skip-column-names --execute='SHOW DATABASES' 2>/dev/null |
    grep -cvxE 'information_schema|mysql|performance_schema|sys|slurm_acct_db')
  # A database server that serves others too is not ours to stop.
  [ "$others" -gt 0 ] || systemctl --quiet disable --now mariadb
fi

for unit in /etc/systemd/system/*.mount; do
  written "$unit" || continue
  systemctl --quiet disable --now "${unit##*/}" || { echo "$unit cannot be unmounted: somebody works there" >&2; exit 1; }
  rm -f "$unit"
done
if [ -e /etc/exports.d/clusterkit.exports ]; then
  rm -f /etc/exports.d/clusterkit.exports
  exportfs -ra 2>/dev/null || :
fi

rm -rf /usr/local/lib/clusterkit
for file in /etc/slurm/slurm.conf /etc/slurm/job_ids.conf /etc/slurm/gres.conf /etc/slurm/cgroup.conf /etc/slurm/slurmdbd.conf \
  /etc/ssh/ssh_known_hosts2 /etc/security/limits.d/clusterkit.conf; do
  case $file in
    /etc/slurm/*) written "$file" && rm -f "$file" ;;
    *) rm -f "$file" ;;
  esac
done
rm -f /etc/munge/munge.key
rm -rf /etc/clusterkit /var/lib/slurm/state
sed -i '/^# The machines of this cluster; written by clusterkit$/,/^# End of clusterkit.s$/d' /etc/hosts
systemctl daemon-reload
rm -rf "$state"
