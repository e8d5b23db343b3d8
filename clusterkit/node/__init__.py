"""What runs on the cluster: standard library only, Python >= 3.9, shipped with every experiment.

The folder of an experiment, E, on the cluster's shared file system:

    E/run.json               what is the same for every slot (see `worker.Settings`)
    E/code/                  the snapshot; every task's working directory
    E/tasks, E/tasks.idx     one JSON line a task; 8-byte little-endian offsets of the lines
    E/rounds/<round>/script  the batch script of a round's arrays
    E/rounds/<round>/queue   (rounds > 0) pairs of little-endian uint32: task, attempts so far
    E/claims/<round>/        who works on what (see `claims`)
    E/slots/<slot>.jsonl     journals (see `journal`); <slot> is <round>.<number>.<incarnation>
    E/slots/<slot>.log       what the slot's tasks printed, one after the other
    E/slots/<job>_<i>.out    what SLURM's batch script itself printed: normally nothing
    E/out/<task>/            CLUSTERKIT_OUT, there while the task runs, kept when it is not empty
    E/checkpoints/<task>/    CLUSTERKIT_CHECKPOINT, likewise; the same folder in every attempt
    E/cancelled              there once `clusterkit cancel` was called

Beside the experiments: `envs/<id>/`, the environments of tasks (see `build`), and `uv/`, what
builds them.

A *position* is a place in a round's queue; in round 0, position n is task n.
"""
