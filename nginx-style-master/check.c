/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a start would refuse, as far as it can be known without doing any of it: nothing is made, bound or opened. That an
 * address is taken is not told, as by the program that runs already it is.
 */
#include "common/base/path.h"
#include "nginx-style-master/listener.h"
#include "nginx-style-master/private.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* The folder that a new `path` would be in. */
static int parent_check(const char *path)
{
    char parent[PATH_MAX];
    int err = path_parent(bytes_of_string(path), parent, sizeof(parent));

    if (err != 0)
        return err;
    return faccessat(AT_FDCWD, parent, W_OK | X_OK, AT_EACCESS) == 0 ? 0 : -errno;
}

static int file_check(const char *key, const char *path, char *error)
{
    struct stat status;
    int err = 0;

    if (path == NULL)
        return 0;
    if (stat(path, &status) != 0)
        err = errno == ENOENT ? parent_check(path) : -errno;
    else if (S_ISDIR(status.st_mode))
        err = -EISDIR;
    else if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) != 0)
        err = -errno;
    if (err != 0)
        snprintf(error, MASTER_ERROR_SIZE, "%s: %s cannot be written: %s", key, path, err_text(err));
    return err;
}

static int listener_check(const struct master_listener *wanted, char *error)
{
    struct sockaddr_storage addr;
    char name[HANDOVER_NAME_MAX];
    socklen_t len;
    struct stat status;
    int err = listener_resolve(wanted, &addr, &len, name, error);

    if (err != 0 || wanted->path == NULL || wanted->path[0] == '@')
        return err;
    err = parent_check(wanted->path);
    if (err == 0 && lstat(wanted->path, &status) == 0 && !S_ISSOCK(status.st_mode))
        err = -EEXIST;
    if (err != 0)
        snprintf(error, MASTER_ERROR_SIZE, "listen: %s: %s", wanted->path, err_text(err));
    return err;
}

int master_check(const struct master_config *config, const char *log_file, const char *pid_file,
                 char error[MASTER_ERROR_SIZE])
{
    struct privilege privilege;
    uint32_t workers;
    int err = reload_config_check(config, &privilege, &workers, error);

    if (err == 0)
        err = file_check("log_file", log_file, error);
    if (err == 0)
        err = file_check("pid_file", pid_file, error);
    for (uint32_t i = 0; i < config->listeners_count && err == 0; i++)
        err = listener_check(&config->listeners[i], error);
    return err;
}
