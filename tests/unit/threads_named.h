/* SPDX-License-Identifier: Apache-2.0 */
/* threads_named.h - how many threads of this process have a name that begins so, those of the kernel's rings among them. */
#pragma once
#include "tests/unit/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static inline int threads_named(const char *prefix)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    int count = 0;

    assert_non_null(tasks);
    while ((task = readdir(tasks)) != NULL) {
        char path[300], name[32] = "";
        int fd;

        snprintf(path, sizeof(path), "/proc/self/task/%s/comm", task->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue; /* "..", or one that has ended */
        if (read(fd, name, sizeof(name) - 1) > 0)
            count += strncmp(name, prefix, strlen(prefix)) == 0;
        close(fd);
    }
    closedir(tasks);
    return count;
}
