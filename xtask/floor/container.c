// The floor of `create`, `start` and `delete`: container create BUNDLE STATE NAME PROGRAM | start STATE | delete STATE NAME
#include "floor.h"
#include <linux/mount.h>

#define LOCKED (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

static void make_cgroup(const char *name) {
    static const char *devices[] = {"b *:* m", "c *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"};
    char path[PATH], value[256];
    for (int i = 0; i < hierarchy_count; i++) {
        char dir[PATH];
        snprintf(dir, sizeof dir, "%s/%s", hierarchies[i], name);
        must(mkdir(dir, 0755), dir);
        if (strstr(hierarchies[i], "cpuset"))
            for (int f = 0; f < 2; f++) {
                const char *file = f ? "cpuset.mems" : "cpuset.cpus";
                snprintf(path, sizeof path, "%s/%s", hierarchies[i], file);
                int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
                value[must(read(fd, value, sizeof value - 1), path)] = 0;
                close(fd);
                snprintf(path, sizeof path, "%s/%s", dir, file);
                put(path, value);
            }
        if (strstr(hierarchies[i], "devices")) {
            snprintf(path, sizeof path, "%s/devices.deny", dir);
            put(path, "a");
            snprintf(path, sizeof path, "%s/devices.allow", dir);
            int fd = must(open(path, O_WRONLY | O_CLOEXEC), path);
            for (unsigned d = 0; d < sizeof devices / sizeof *devices; d++) must(write(fd, devices[d], strlen(devices[d])), devices[d]);
            close(fd);
        }
    }
}

static void mounted(const char *source, const char *target, const char *type, unsigned long flags, const char *options) {
    must(mount(source, target, type, flags, options), target);
}

// A bind with its flags in one attach, instead of a bind and a remount.
static void bind_locked(const char *source, const char *target) {
    int tree = syscall(SYS_open_tree, AT_FDCWD, source, 1 | AT_RECURSIVE | O_CLOEXEC);
    if (tree < 0) return;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | LOCKED};
    must(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr), target);
    must(syscall(SYS_move_mount, tree, "", AT_FDCWD, target, 4), target);
    close(tree);
}

// `runc spec`: seven mounts, ten masked and five read-only paths, six devices, read-only root.
static void make_root(const char *root, const char *cgroup) {
    static const struct { const char *path; int major, minor; } nodes[] = {{"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7}, {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
    static const char *links[][2] = {{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"}};
    static const char *read_only[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    static const char *masked[] = {"proc/acpi", "proc/asound", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/timer_stats", "proc/sched_debug", "sys/firmware", "proc/scsi"};
    const unsigned long locked = MS_NOSUID | MS_NOEXEC | MS_NODEV;

    mounted(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL);
    mounted(root, root, NULL, MS_BIND | MS_REC, NULL);
    must(chdir(root), root);
    mounted("proc", "proc", "proc", 0, NULL);
    mounted("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    mkdir("dev/pts", 0755), mkdir("dev/shm", 0755), mkdir("dev/mqueue", 0755);
    mounted("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    mounted("shm", "dev/shm", "tmpfs", locked, "mode=1777,size=65536k");
    mounted("mqueue", "dev/mqueue", "mqueue", locked, NULL);
    mounted("sysfs", "sys", "sysfs", locked | MS_RDONLY, NULL);
    mounted("tmpfs", "sys/fs/cgroup", "tmpfs", locked, "mode=755");
    for (int i = 0; i < hierarchy_count; i++) {
        char source[PATH], target[PATH];
        snprintf(source, sizeof source, "%s/%s", hierarchies[i], cgroup);
        snprintf(target, sizeof target, "sys/fs/cgroup/%s", strrchr(hierarchies[i], '/') + 1);
        must(mkdir(target, 0755), target);
        bind_locked(source, target);
    }
    mounted(NULL, "sys/fs/cgroup", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | locked, NULL);
    for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++) must(mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), nodes[i].path);
    for (unsigned i = 0; i < sizeof links / sizeof *links; i++) must(symlink(links[i][0], links[i][1]), links[i][1]);
    for (unsigned i = 0; i < sizeof read_only / sizeof *read_only; i++) bind_locked(read_only[i], read_only[i]);
    const char *empty = NULL;
    for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++) {
        if (!mount("dev/null", masked[i], NULL, MS_BIND, NULL) || errno != ENOTDIR) continue;
        if (empty) mounted(empty, masked[i], NULL, MS_BIND, NULL);
        else mounted("tmpfs", empty = masked[i], "tmpfs", MS_RDONLY, "nr_inodes=1");
    }
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount");
    must(chdir("/"), "/");
    mounted(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL);
}

static void child(const char *bundle, const char *cgroup, const char *program, int fifo, int ready) {
    char path[PATH];
    join_cgroup(cgroup);
    snprintf(path, sizeof path, "%s/rootfs", bundle);
    make_root(path, cgroup);
    must(sethostname("floor", 5), "sethostname");
    setsid();
    drop_capabilities();
    must(write(ready, "r", 1), "ready");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fifo);
    int gate = must(open(path, O_WRONLY | O_CLOEXEC), "fifo");
    must(write(gate, "0", 1), "fifo");
    execv(program, (char *[]){(char *)program, NULL});
    die(program);
}

static int create(const char *bundle, const char *state, const char *cgroup, const char *program) {
    char path[PATH], record[PATH], config[32768];
    snprintf(path, sizeof path, "%s/config.json", bundle);
    int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
    must(read(fd, config, sizeof config), path);
    close(fd);
    must(mkdir(state, 0700), state);
    snprintf(path, sizeof path, "%s/exec.fifo", state);
    must(mkfifo(path, 0622), path);
    int fifo = must(open(path, O_PATH | O_CLOEXEC), path), ready[2];
    must(pipe2(ready, O_CLOEXEC), "pipe");
    make_cgroup(cgroup);
    pid_t pid = clone_into(NAMESPACES);
    if (!pid) child(bundle, cgroup, program, fifo, ready[1]);
    close(ready[1]);
    char byte;
    if (read(ready[0], &byte, 1) != 1) return 1;
    snprintf(path, sizeof path, "%s/state.tmp", state);
    snprintf(record, sizeof record, "%s/state.json", state);
    fd = must(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), path);
    dprintf(fd, "%d %01024d", pid, 0);
    close(fd);
    must(rename(path, record), record);
    return 0;
}

static int state_pid(const char *state) {
    char path[PATH], text[32] = "";
    snprintf(path, sizeof path, "%s/state.json", state);
    int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
    must(read(fd, text, sizeof text - 1), path);
    close(fd);
    return atoi(text);
}

static int start(const char *state) {
    char path[PATH], byte;
    state_pid(state);
    snprintf(path, sizeof path, "%s/exec.fifo", state);
    int fifo = must(open(path, O_RDONLY | O_CLOEXEC), path);
    if (read(fifo, &byte, 1) != 1) return 1;
    return unlink(path) != 0;
}

static int delete(const char *state, const char *cgroup) {
    char path[PATH];
    int pidfd = syscall(SYS_pidfd_open, state_pid(state), 0);
    if (pidfd >= 0) {
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        poll(&(struct pollfd){pidfd, POLLIN, 0}, 1, 10000);
    }
    for (int i = 0; i < hierarchy_count; i++) {
        snprintf(path, sizeof path, "%s/%s", hierarchies[i], cgroup);
        for (int tries = 0; rmdir(path) && errno == EBUSY && tries < 5000; tries++) usleep(200);
    }
    snprintf(path, sizeof path, "%s/exec.fifo", state);
    unlink(path);
    snprintf(path, sizeof path, "%s/state.json", state);
    must(unlink(path), path);
    return must(rmdir(state), state);
}

int main(int count, char **words) {
    find_hierarchies();
    if (count == 6 && !strcmp(words[1], "create")) return create(words[2], words[3], words[4], words[5]);
    if (count == 3 && !strcmp(words[1], "start")) return start(words[2]);
    if (count == 4 && !strcmp(words[1], "delete")) return delete(words[2], words[3]);
    return 2;
}
