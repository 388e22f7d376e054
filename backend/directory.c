/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/directory.h"

#include "common/base/err.h"
#include "common/base/path.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define NAME_FILE  "node.id"
#define SHARDS_MAX 128u

static int fail(char *error, size_t size, const char *what, const char *path, int err)
{
    snprintf(error, size, "dir: cannot %s %s: %s", what, path, err_text(err));
    return err;
}

static void give_away(int fd, const char *user)
{
    const struct passwd *pw = user != NULL && geteuid() == 0 ? getpwnam(user) : NULL;

    if (pw != NULL)
        MAYBE(fchown(fd, pw->pw_uid, pw->pw_gid) == 0);
}

static bool is_name(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
            return false;
    return len == DIRECTORY_NAME_SIZE - 1;
}

static int name_make(int dir, const char *user, char name[DIRECTORY_NAME_SIZE])
{
    unsigned char random[(DIRECTORY_NAME_SIZE - 1) / 2];
    int fd, err = 0;

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return -EIO;
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(name + i * 2, 3, "%02x", random[i]);
    fd = openat(dir, NAME_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (write(fd, name, DIRECTORY_NAME_SIZE - 1) != DIRECTORY_NAME_SIZE - 1 || fsync(fd) != 0 || fsync(dir) != 0)
        err = -EIO;
    give_away(fd, user);
    close(fd);
    if (err != 0)
        MAYBE(unlinkat(dir, NAME_FILE, 0) == 0);
    return err;
}

/* -ENOENT: it has none. */
static int name_look(int dir, char name[DIRECTORY_NAME_SIZE])
{
    int fd = openat(dir, NAME_FILE, O_RDONLY | O_CLOEXEC);
    ssize_t len;

    if (fd < 0)
        return -errno;
    len = read(fd, name, DIRECTORY_NAME_SIZE - 1);
    close(fd);
    if (len < 0 || !is_name(name, (size_t)len))
        return ERR_CORRUPT;
    name[len] = '\0';
    return 0;
}

static int name_read(int dir, const char *user, char name[DIRECTORY_NAME_SIZE])
{
    int err = name_look(dir, name);

    return err == -ENOENT ? name_make(dir, user, name) : err;
}

static int name_fail(const char *dir, int err, char *error, size_t size)
{
    if (err != ERR_CORRUPT)
        return fail(error, size, "read or write " NAME_FILE " in", dir, err);
    snprintf(error, size, "dir: %s/" NAME_FILE " is damaged: write the NAME of its log rings /dev/shm/weir-NAME-0 ... "
             "into it, 32 digits; or remove it, the start makes another, and goes on without what such a ring has", dir);
    return err;
}

int directory_open(const char *start_dir, const char *dir, const char *user, char *path, size_t path_size,
                   char name[DIRECTORY_NAME_SIZE], char *error, size_t error_size)
{
    char absolute[PATH_MAX], joined[PATH_MAX];
    bool is_new;
    int fd, err;

    if ((size_t)snprintf(joined, sizeof(joined), "%s%s%s", dir[0] == '/' ? "" : start_dir, dir[0] == '/' ? "" : "/",
                         dir) >= sizeof(joined))
        return fail(error, error_size, "use", dir, -ENAMETOOLONG);
    dir = joined;
    is_new = mkdir(dir, 0700) == 0;
    if (!is_new && errno != EEXIST)
        return fail(error, error_size, "make", dir, -errno);
    if (realpath(dir, absolute) == NULL)
        return fail(error, error_size, "find", dir, -errno);
    if (strlen(absolute) >= path_size)
        return fail(error, error_size, "use", dir, -ENAMETOOLONG);
    memcpy(path, absolute, strlen(absolute) + 1);
    fd = open(absolute, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail(error, error_size, "open", absolute, -errno);
    if (is_new)
        give_away(fd, user);
    err = name_read(fd, user, name);
    close(fd);
    return err == 0 ? 0 : name_fail(absolute, err, error, error_size);
}

/* "shard-12"; false: another name. */
static bool shard_number(const char *name, uint32_t *number)
{
    char *end;
    unsigned long value;

    if (strncmp(name, "shard-", 6) != 0 || name[6] < '0' || name[6] > '9')
        return false;
    value = strtoul(name + 6, &end, 10);
    *number = (uint32_t)value;
    return *end == '\0' && value < SHARDS_MAX;
}

static bool has_entries(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;
    bool has = false;

    if (dir == NULL) {
        if (fd >= 0)
            close(fd);
        return fd < 0 && errno != ENOENT && errno != ENOTDIR;
    }
    while (!has && (entry = readdir(dir)) != NULL)
        has = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return has;
}

/* How many shards there are: one more than the highest number; 0 if none of them has anything in it. */
static int shards_count(int parent, uint32_t *count)
{
    int fd = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;
    bool has_data = false;
    uint32_t number, top = 0;

    if (dir == NULL) {
        int err = -errno;

        if (fd >= 0)
            close(fd);
        return err;
    }
    while ((entry = readdir(dir)) != NULL)
        if (shard_number(entry->d_name, &number)) {
            top = MAX(top, number + 1);
            has_data |= has_entries(parent, entry->d_name);
        }
    closedir(dir);
    *count = has_data ? top : 0;
    return 0;
}

static int shard_make(int parent, uint32_t shard, const char *user)
{
    char name[32];
    int fd;

    snprintf(name, sizeof(name), "shard-%u", shard);
    if (mkdirat(parent, name, 0700) < 0)
        return errno == EEXIST ? 0 : -errno;
    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    give_away(fd, user);
    close(fd);
    return 0;
}

static int count_check(const char *path, uint32_t count, uint32_t workers, char *error, size_t error_size)
{
    if (count == 0 || count == workers)
        return 0;
    snprintf(error, error_size, "dir: %s has the data of %u shard%s: start with workers %u, or with another dir", path,
             count, count == 1 ? "" : "s", count);
    return ERR_INVALID;
}

int directory_shards(const char *path, uint32_t workers, const char *user, char *error, size_t error_size)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint32_t count = 0;
    int err = fd >= 0 ? shards_count(fd, &count) : -errno;

    for (uint32_t i = 0; err == 0 && count == 0 && i < workers; i++)
        err = shard_make(fd, i, user);
    if (err == 0 && count == 0 && fsync(fd) != 0)
        err = -errno;
    if (fd >= 0)
        close(fd);
    if (err != 0)
        return fail(error, error_size, "make the shards of", path, err);
    return count_check(path, count, workers, error, error_size);
}

static int writable(const char *path)
{
    return faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) == 0 ? 0 : -errno;
}

static int parent_check(const char *dir)
{
    char parent[PATH_MAX];
    int err = path_parent(path_trimmed(bytes_of_string(dir)), parent, sizeof(parent));

    return err == 0 ? writable(parent) : err;
}

static int shards_check(const char *dir, uint32_t count, char *error, size_t error_size)
{
    for (uint32_t i = 0; i < count; i++) {
        char path[PATH_MAX];
        int err = (size_t)snprintf(path, sizeof(path), "%s/shard-%u", dir, i) < sizeof(path) ? writable(path) : -ENAMETOOLONG;

        if (err != 0 && err != -ENOENT) /* one of several that are there: the worker will say what is wrong with it */
            return fail(error, error_size, "write to", path, err);
    }
    return 0;
}

int directory_check(const char *dir, uint32_t workers, char *error, size_t error_size)
{
    char name[DIRECTORY_NAME_SIZE];
    uint32_t count = 0;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

    if (fd < 0 && errno == ENOENT) {
        err = parent_check(dir);
        return err == 0 ? 0 : fail(error, error_size, "make", dir, err);
    }
    if (fd < 0)
        return fail(error, error_size, "open", dir, -errno);
    err = name_look(fd, name);
    if (err == -ENOENT)
        err = writable(dir);
    if (err != 0) {
        close(fd);
        return name_fail(dir, err, error, error_size);
    }
    err = shards_count(fd, &count);
    close(fd);
    if (err == 0 && count == 0)
        err = writable(dir);
    if (err != 0)
        return fail(error, error_size, "make the shards of", dir, err);
    err = count_check(dir, count, workers, error, error_size);
    return err == 0 ? shards_check(dir, count, error, error_size) : err;
}

uint64_t directory_file_system(const char *path)
{
    struct statvfs stat;

    return statvfs(path, &stat) == 0 ? (uint64_t)stat.f_blocks * stat.f_frsize : 0;
}
