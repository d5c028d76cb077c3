// Builds with libseccomp the filter that runc would build, and writes its BPF to stdout. Test helper.
// stdin: "arch TOKEN" | "default ACTION" | "rule ACTION NAME COUNT (INDEX OP A B)..." ; numbers in decimal.
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check(int rc, const char *what) {
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(-rc));
        exit(1);
    }
}

int main(void) {
    char word[64], name[64];
    uint32_t action, token;
    scmp_filter_ctx ctx = NULL;
    while (scanf("%63s", word) == 1) {
        if (!strcmp(word, "default")) {
            scanf("%" SCNu32, &action);
            ctx = seccomp_init(action);
            check(seccomp_arch_remove(ctx, seccomp_arch_native()), "remove native");
        } else if (!strcmp(word, "arch")) {
            scanf("%" SCNu32, &token);
            check(seccomp_arch_add(ctx, token), "arch");
        } else {
            struct scmp_arg_cmp args[6];
            unsigned count, index, op;
            scanf("%" SCNu32 " %63s %u", &action, name, &count);
            for (unsigned i = 0; i < count; i++) {
                uint64_t a, b;
                scanf("%u %u %" SCNu64 " %" SCNu64, &index, &op, &a, &b);
                args[i] = (struct scmp_arg_cmp){index, op, a, b};
            }
            int number = seccomp_syscall_resolve_name(name);
            if (number == __NR_SCMP_ERROR) continue;
            check(seccomp_rule_add_array(ctx, action, number, count, args), name);
        }
    }
    check(seccomp_export_bpf(ctx, STDOUT_FILENO), "export");
    return 0;
}
