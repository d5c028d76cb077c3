// The floor of `exec`: exec PID CGROUP PROGRAM joins the container of PID, runs PROGRAM in it and returns its exit code.
#include "floor.h"

int main(int count, char **words) {
    if (count != 4) return 2;
    find_hierarchies();
    int pidfd = must(syscall(SYS_pidfd_open, atoi(words[1]), 0), "pidfd_open"), status = 0;
    join_cgroup(words[2]);
    must(setns(pidfd, NAMESPACES), "setns");
    pid_t pid = clone_into(0);
    if (!pid) {
        setsid();
        drop_capabilities();
        execv(words[3], (char *[]){words[3], NULL});
        die(words[3]);
    }
    must(waitpid(pid, &status, 0), "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
