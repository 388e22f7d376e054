/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/control_path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

bool control_directory(char out[CONTROL_PATH_MAX])
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int len;

    if (geteuid() == 0)
        len = snprintf(out, CONTROL_PATH_MAX, "/run/weir");
    else if (runtime != NULL && runtime[0] == '/')
        len = snprintf(out, CONTROL_PATH_MAX, "%s/weir", runtime);
    else
        len = snprintf(out, CONTROL_PATH_MAX, "/tmp/weir-%u", (unsigned)geteuid());
    return len > 0 && (size_t)len < CONTROL_PATH_MAX;
}

bool control_default_path(const char *stats_host, uint16_t stats_port, char out[CONTROL_PATH_MAX])
{
    char directory[CONTROL_PATH_MAX];
    bool is_plain = stats_host == NULL || stats_host[0] == '\0' || strcmp(stats_host, "127.0.0.1") == 0 ||
                    strcmp(stats_host, "0.0.0.0") == 0 || strcmp(stats_host, "localhost") == 0;
    int len;

    if (!control_directory(directory))
        return false;
    len = snprintf(out, CONTROL_PATH_MAX, "%s/weir-proxy-%s%s%u.sock", directory, is_plain ? "" : stats_host,
                   is_plain ? "" : "-", (unsigned)stats_port);
    return len > 0 && (size_t)len < CONTROL_PATH_MAX;
}

bool control_directory_make(void)
{
    char directory[CONTROL_PATH_MAX];
    struct stat stat;

    if (!control_directory(directory) || (mkdir(directory, 0700) != 0 && errno != EEXIST))
        return false;
    /* /tmp is everybody's: what is there must be ours, and a directory, and closed to others. */
    return lstat(directory, &stat) == 0 && S_ISDIR(stat.st_mode) && stat.st_uid == geteuid() &&
           (stat.st_mode & 022) == 0 && access(directory, W_OK) == 0;
}
