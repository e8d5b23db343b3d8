"""Real systemd hosts on one Linux machine: systemd-nspawn over an overlay of a debootstrap base.

    needs         what this machine lacks for it
    surroundings  what the hosts take over from this machine, so that apt, pip and uv work in them
    base          the image: made once, content-addressed, shared by all hosts
    network       a bridge of the cluster's own, its addresses, the way out
    cgroup        a control group for each host, whatever this machine's own hierarchy is
    host          one host: seeded, booted, waited for, ended

Usable without the provider. All mounts live in a mount namespace of the host's own processes, so
that the kernel takes them back whatever is killed.
"""
