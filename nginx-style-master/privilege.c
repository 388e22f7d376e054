/* SPDX-License-Identifier: Apache-2.0 */
#include "nginx-style-master/process.h"
#include "common/base/log.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

int privilege_resolve(const char *user, const char *group, struct privilege *out, char *error,
                      size_t error_size)
{
    const struct passwd *pw;

    *out = (struct privilege){0};
    if (user == NULL && group == NULL)
        return 0;
    if (geteuid() != 0) {
        /* As nginx: only root can change; for anybody else the wish is void, not an error. */
        return 0;
    }
    out->is_set = true;
    out->uid = geteuid();
    out->gid = getegid();
    if (user != NULL) {
        pw = getpwnam(user);
        if (pw == NULL) {
            snprintf(error, error_size, "user: there is no user \"%s\"", user);
            return ERR_NOT_FOUND;
        }
        out->uid = pw->pw_uid;
        out->gid = pw->pw_gid;
    }
    if (group != NULL) {
        const struct group *gr = getgrnam(group);

        if (gr == NULL) {
            snprintf(error, error_size, "group: there is no group \"%s\"", group);
            return ERR_NOT_FOUND;
        }
        out->gid = gr->gr_gid;
    }
    out->groups_count = PRIVILEGE_GROUPS_MAX;
    if (user == NULL || getgrouplist(user, out->gid, out->groups, &out->groups_count) < 0) {
        out->groups[0] = out->gid;
        out->groups_count = 1;
    }
    return 0;
}

int privilege_drop(const struct privilege *privilege)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -errno;
    if (!privilege->is_set)
        return 0;
    if (setgroups((size_t)privilege->groups_count, privilege->groups) != 0 ||
        setresgid(privilege->gid, privilege->gid, privilege->gid) != 0 ||
        setresuid(privilege->uid, privilege->uid, privilege->uid) != 0)
        return -errno;
    return 0;
}

void privilege_rlimit_nofile(uint64_t wanted, struct log *log)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    if (wanted == 0)
        wanted = limit.rlim_max;
    if (wanted > limit.rlim_max) {
        struct rlimit raised = {.rlim_cur = wanted, .rlim_max = wanted};

        if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
            return;
        log_warn(log, "rlimit_nofile is above what the system allows wanted=%llu limit=%llu",
                 (unsigned long long)wanted, (unsigned long long)limit.rlim_max);
        wanted = limit.rlim_max;
    }
    limit.rlim_cur = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_warn(log, "setrlimit failed: %s", err_text(-errno));
}

const char *privilege_nofile_hint(int err)
{
    return err == -EMFILE ? " (raise rlimit_nofile, or the limit of the system)" : "";
}
