#!/bin/sh
# A real Grid Engine, on one node, for as long as a command runs: sh grid_engine.sh COMMAND ...
#
# Needs root and Debian's gridengine-master, gridengine-exec, gridengine-client and iproute2. It lives in
# namespaces of its own: nobody outside reaches its ports or sees its files, and all its processes
# end with the command. The command sees no network. There are the queues all.q and gpu.q of eight
# slots each, the parallel environment smp, and two of the resource gpu.
set -eu
if [ "${GRID_ENGINE:-}" != own ]; then
    export GRID_ENGINE=own
    exec unshare --net --mount --uts --pid --fork --kill-child --mount-proc sh "$0" "$@"
fi
root=/var/lib/gridengine spool=/var/spool/gridengine
cell=$root/default/common

# It refuses a host whose name and address do not belong together, such as one that is localhost.
ip link set lo up
ip address add 192.0.2.1 dev lo
hostname node1
mount -t tmpfs none $root/default
mount -t tmpfs none $spool
printf '127.0.0.1 localhost\n192.0.2.1 node1\n' >$spool/hosts
mount --bind $spool/hosts /etc/hosts

mkdir -p $cell $spool/qmaster/job_scripts $spool/spooldb $spool/execd
cp /usr/share/gridengine/default-bootstrap $cell/bootstrap
echo node1 >$cell/act_qmaster
chown -R sgeadmin: $root/default $spool

set_up() {
    setpriv --reuid sgeadmin --regid sgeadmin --clear-groups \
        sh /usr/share/gridengine/scripts/init_cluster $root default $spool/spooldb sgeadmin
    /usr/sbin/sge_qmaster
    until qconf -sh >/dev/null 2>&1; do sleep 0.1; done # it listens a moment later
    qconf -as node1
    # Jobs of root, no mail, and news of nodes and a look at the queue at short intervals.
    qconf -sconf | sed 's|^\(min_.id\) .*|\1 0|; s|^\(mailer\) .*|\1 /bin/true|
        s|^\(load_report_time\) .*|\1 0:0:2|' >$spool/global
    qconf -Mconf $spool/global
    qconf -ssconf | sed 's/^\(schedule_interval\) .*/\1 0:0:1/' >$spool/scheduler
    qconf -Msconf $spool/scheduler
    (qconf -sc && echo 'gpu gpu INT <= YES YES 0 0') >$spool/resources
    qconf -Mc $spool/resources
    /usr/sbin/sge_execd
    until qconf -sel | grep -q node1; do sleep 0.1; done
    qconf -mattr exechost complex_values gpu=2 node1
    # qconf has an editor change its templates, and looks at the time of the file.
    cat >$spool/editor <<'END'
#!/bin/sh
sed -i 's/^\(hostlist\) .*/\1 node1/; s/^\(pe_list\) .*/\1 smp/; s/^\(slots\) .*/\1 8/
s/^\(load_thresholds\) .*/\1 NONE/; s|^\(tmpdir\) .*|\1 /var/spool/gridengine|' "$1"
touch -d '1 hour' "$1"
END
    chmod +x $spool/editor
    EDITOR=$spool/editor qconf -ap smp
    for queue in all.q gpu.q; do EDITOR=$spool/editor qconf -aq $queue; done
}

trap 'cat $spool/set-up.log >&2' EXIT
set_up >$spool/set-up.log 2>&1
trap - EXIT
"$@"
