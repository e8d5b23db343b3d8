"""Bring new keys into a machine that lets nobody in from here: what it does at its next boot.

POSIX sh, run by root. Killed at any line it can be run again. All key texts are found by their
base64 part, so that options and comments do not matter (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
"""

from __future__ import annotations

#: Accounts that images come with, the likeliest first.
LOGINS = ("ubuntu", "debian", "admin", "ec2-user", "root", "rocky", "fedora", "cloud-user")

_STATE = "/var/lib/clusterkit"
#: Keys that let in once and never shall again; $key is the one that does instead.
_FORMER = f"""\
state={_STATE}
# In every account a former key goes, and where it alone let in, the new one does from now on.
without_former() {{
  [ -s $state/former-keys ] || return 0
  getent passwd | cut -d: -f6 | sort -u | while read -r home; do
    for file in "$home/.ssh/authorized_keys" "$home/.ssh/authorized_keys2"; do
      [ -f "$file" ] && grep -qsF -f $state/former-keys "$file" || continue
      staging=$file.clusterkit
      # The owner and the mode are those of the file; one that root may not write to is another
      # machine's to see to.
      rm -f "$staging" && cp -p "$file" "$staging" 2>/dev/null || continue
      key=$key awk '
        NR == FNR {{ former[$0]; next }}
        {{ hit = 0; for (one in former) if (index($0, one)) hit = 1 }}
        !hit {{ print; next }}
        /^[ \\t]*(ssh|ecdsa|sk)-/ && !told {{ print ENVIRON["key"]; told = 1 }}
      ' $state/former-keys "$file" > "$staging" && mv -f "$staging" "$file"
    done
  done
}}
"""

#: Its words: a nonce, the cluster, its public key, a host key (private, public). Once for a nonce.
SCRIPT = f"""\
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
nonce=$1 cluster=$2 key=$3 private=$4 public=$5
{_FORMER}
[ "$(cat $state/adopted 2>/dev/null || :)" != "$nonce" ] || exit 0
umask 077
mkdir -p $state && chmod 0755 $state
blobs() {{ grep -oE 'AAAA[A-Za-z0-9+/]{{30,}}=*' || :; }}
put() {{ cat > "$1.clusterkit" && chmod "$2" "$1.clusterkit" && mv -f "$1.clusterkit" "$1"; }}

# The account that the image's cloud-init makes, and those that images usually have.
made=$(python3 -c 'from cloudinit.stages import Init
init = Init(); init.read_cfg()
print(init.cfg["system_info"]["default_user"]["name"])' 2>/dev/null || :)
logins=''
for name in $made {" ".join(one for one in LOGINS if one != "root")}; do
  home=$(getent passwd "$name" | cut -d: -f6)
  [ -n "$home" ] || continue
  [ "$name" = "$made" ] || [ -f "$home/.ssh/authorized_keys" ] || continue
  case " $logins " in *" $name "*) ;; *) logins="$logins $name" ;; esac
done

# All keys of those accounts, and the cluster's own in any account.
mine=$(printf %s "$key" | blobs)
{{
  cat $state/former-keys 2>/dev/null || :
  for name in $logins; do
    home=$(getent passwd "$name" | cut -d: -f6)
    cat "$home"/.ssh/authorized_keys "$home"/.ssh/authorized_keys2 2>/dev/null | blobs
  done
  getent passwd | cut -d: -f6 | sort -u | while read -r home; do
    grep -hsE "[[:space:]]clusterkit $cluster\\$" "$home"/.ssh/authorized_keys | blobs
  done
}} | sort -u | grep -vxF "$mine" > $state/former-keys.new || :
mv -f $state/former-keys.new $state/former-keys

for name in $logins; do
  home=$(getent passwd "$name" | cut -d: -f6)
  mkdir -p "$home/.ssh"
  printf '%s\\n' "$key" | put "$home/.ssh/authorized_keys" 0600
  rm -f "$home/.ssh/authorized_keys2"
  chown "$name:$(id -g "$name")" "$home/.ssh" "$home/.ssh/authorized_keys"
done
without_former

# The first host key, in place of all; `reach` replaces it, as that of any new machine.
rm -f $state/rotated /etc/ssh/clusterkit_new_key*
printf '%s\\n' "$private" | put /etc/ssh/ssh_host_ed25519_key 0600
printf '%s\\n' "$public" | put /etc/ssh/ssh_host_ed25519_key.pub 0644
for old in /etc/ssh/ssh_host_*; do
  case $old in */ssh_host_ed25519_key | */ssh_host_ed25519_key.pub) ;; *) rm -f "$old" ;; esac
done
sync
printf '%s\\n' "$nonce" | put $state/adopted 0644
# Where sshd runs already. Nothing is waited for: this is early in the boot.
systemctl --no-block try-reload-or-restart ssh.service sshd.service 2>/dev/null || :
"""

#: By `reach`, when all homes are mounted; its word is the cluster's public key.
FORMER_SCRIPT = f"""\
set -eu
umask 077
key=$1
{_FORMER}
without_former
"""
