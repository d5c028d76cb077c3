// What the probes share: errors that stop, small files, cgroup v1 hierarchies, clone3.
// Floor probes do the kernel work of a runtime in plain calls and nothing else: no JSON, no safety, no errors handled.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAMESPACES (CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWNS)
#define PATH 512

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static long must(long answer, const char *what) {
    if (answer < 0) die(what);
    return answer;
}

static void put(const char *path, const char *text) {
    int fd = must(open(path, O_WRONLY | O_CLOEXEC), path);
    must(write(fd, text, strlen(text)), path);
    close(fd);
}

static pid_t clone_into(unsigned long long flags) {
    struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
    return must(syscall(SYS_clone3, &args, sizeof args), "clone3");
}

// The mounts of all v1 hierarchies, in FLOOR_CGROUPS, separated by colons.
static char *hierarchies[32];
static int hierarchy_count;

static void find_hierarchies(void) {
    char *list = strdup(getenv("FLOOR_CGROUPS") ? getenv("FLOOR_CGROUPS") : "");
    for (char *one = strtok(list, ":"); one && hierarchy_count < 32; one = strtok(NULL, ":")) hierarchies[hierarchy_count++] = one;
}

// The join that takes no lock: see the runtime's cgroup/join.rs.
static void join_cgroup(const char *name) {
    char path[PATH];
    for (int i = 0; i < hierarchy_count; i++) {
        snprintf(path, sizeof path, "%s/%s/tasks", hierarchies[i], name);
        put(path, "0");
    }
}

static void drop_capabilities(void) {
    const unsigned keep = 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE | 1u << CAP_AUDIT_WRITE;
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (cap > 31 || !(keep & 1u << cap)) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{keep, keep, 0}, {0, 0, 0}};
    must(syscall(SYS_capset, &header, data), "capset");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
