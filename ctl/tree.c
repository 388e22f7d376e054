/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/tree.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/base/path.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_PIECE (1u << 20)

static int told(const char *path, const char *what, int err)
{
    fprintf(stderr, "weirctl: %s: %s%s%s\n", path, what, what[0] == '\0' ? "" : ": ",
            err == -ENOSPC || err == -EDQUOT ? "there is not enough room on its disk" : err_text(err));
    return err;
}

/* ---- removing --------------------------------------------------------------------------------- */

static int names_remove(int fd, unsigned depth)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;

    if (dir == NULL)
        return -errno;
    while (err == 0 && (entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;
        int child;

        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || unlinkat(fd, name, 0) == 0)
            continue;
        child = errno == EISDIR && depth > 0 ? openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
        if (child < 0) {
            err = -errno;
            break;
        }
        err = names_remove(child, depth - 1);
        close(child);
        if (err == 0 && unlinkat(fd, name, AT_REMOVEDIR) != 0)
            err = -errno;
    }
    closedir(dir);
    return err;
}

int tree_remove(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), err;

    if (fd < 0)
        return errno == ENOENT ? 0 : told(path, "", -errno);
    err = names_remove(fd, 1);
    close(fd);
    if (err == 0 && rmdir(path) != 0)
        err = -errno;
    return err == 0 ? 0 : told(path, "cannot be removed", err);
}

/* ---- begin ------------------------------------------------------------------------------------ */

/* Up from the folder that it will be in, as that is on the disk, to the root, which is its own parent. */
int tree_outside(const char *path, const char *source)
{
    struct stat wanted, at = {0}, child;
    char parent[TREE_PATH_MAX];
    int fd, up, err = path_parent(path_trimmed(bytes_of_string(path)), parent, sizeof(parent));

    fd = err == 0 ? open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0 || stat(source, &wanted) != 0 || fstat(fd, &at) != 0) {
        if (fd >= 0)
            close(fd);
        return 0; /* told by who makes or reads it */
    }
    do {
        child = at;
        if (at.st_dev == wanted.st_dev && at.st_ino == wanted.st_ino)
            err = ERR_INVALID;
        up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(fd);
        fd = up;
    } while (err == 0 && fd >= 0 && fstat(fd, &at) == 0 && (at.st_dev != child.st_dev || at.st_ino != child.st_ino));
    if (fd >= 0)
        close(fd);
    if (err != 0)
        fprintf(stderr, "weirctl: %s: it is inside of %s, which is only read: choose another place\n", path, source);
    return err;
}

static int is_free(const char *path)
{
    struct stat status;
    struct dirent *entry;
    DIR *dir;
    int count = 0;

    if (lstat(path, &status) == 0 && S_ISLNK(status.st_mode)) {
        fprintf(stderr, "weirctl: %s: it is a symbolic link, which no directory can replace: name what it leads to\n", path);
        return ERR_EXISTS;
    }
    dir = opendir(path);
    if (dir == NULL)
        return errno == ENOENT ? 0 : told(path, "", -errno);
    while ((entry = readdir(dir)) != NULL)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    if (count == 0)
        return 0;
    fprintf(stderr, "weirctl: %s: it exists and is not empty; nothing is written over\n", path);
    return ERR_EXISTS;
}

/* N3 */
static int rest_remove(const char *part)
{
    int fd = open(part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), err;

    if (fd < 0)
        return errno == ENOENT ? 0 : told(part, "", -errno);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        fprintf(stderr, "weirctl: %s: another weirctl is working on it\n", part);
        return ERR_EXISTS;
    }
    err = tree_remove(part);
    close(fd);
    return err;
}

int tree_begin(struct tree *tree, const char *path)
{
    struct bytes name = path_trimmed(bytes_of_string(path));
    int err;

    *tree = (struct tree){.count = 0};
    if (name.len == 0 || name.len + sizeof(".part") > TREE_PATH_MAX)
        return told(path, "", name.len == 0 ? -ENOENT : -ENAMETOOLONG);
    (void)snprintf(tree->path, sizeof(tree->path), "%.*s", BYTES_ARG(name));
    (void)snprintf(tree->part, sizeof(tree->part), "%.*s.part", BYTES_ARG(name));
    err = is_free(tree->path);
    if (err == 0)
        err = rest_remove(tree->part);
    if (err != 0)
        return err;
    if (mkdir(tree->part, 0700) != 0)
        return told(tree->part, "cannot be made", -errno);
    tree->fds[0] = open(tree->part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tree->fds[0] < 0)
        return told(tree->part, "", -errno);
    tree->count = 1;
    if (flock(tree->fds[0], LOCK_EX | LOCK_NB) == 0)
        return 0;
    err = told(tree->part, "cannot be locked", -errno);
    tree_drop(tree);
    return err;
}

/* Only root can give files away; others have what is their own anyway. */
static void like_it(int fd, int like, mode_t mask)
{
    struct stat status;

    if (like < 0 || fstat(like, &status) != 0)
        return;
    MAYBE(fchown(fd, status.st_uid, status.st_gid) == 0);
    MAYBE(fchmod(fd, status.st_mode & mask) == 0);
}

int tree_dir(struct tree *tree, const char *name, int like)
{
    int fd;

    ASSERT(tree->count > 0 && tree->count < TREE_DIRS_MAX);
    if (mkdirat(tree->fds[0], name, 0700) != 0)
        return told(tree->part, "a folder cannot be made", -errno);
    fd = openat(tree->fds[0], name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return told(tree->part, "", -errno);
    like_it(fd, like, 0777);
    like_it(tree->fds[0], like, 0777);
    tree->fds[tree->count++] = fd;
    return fd;
}

/* ---- files ------------------------------------------------------------------------------------ */

int tree_link(struct tree *tree, int from, const char *name, int to)
{
    struct stat status;

    if (linkat(from, name, to, name, 0) == 0) {
        if (fstatat(to, name, &status, 0) == 0)
            tree->linked_bytes += (uint64_t)status.st_size;
        return 0;
    }
    if (errno == EXDEV || errno == EPERM || errno == EMLINK || errno == EOPNOTSUPP)
        return -EXDEV;
    return told(name, "cannot be linked", -errno);
}

static bool is_zero(const char *data, size_t size)
{
    return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

static int write_all(int fd, const char *data, size_t size, uint64_t off)
{
    while (size > 0) {
        ssize_t done = pwrite(fd, data, size, (off_t)off);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done == 0 ? -EIO : -errno;
        data += done;
        size -= (size_t)done;
        off += (uint64_t)done;
    }
    return 0;
}

/* Pages of zeroes stay holes. Bytes, or an error. */
static int64_t copy_bytes(struct tree *tree, int in, int out, char *piece)
{
    uint64_t off = 0;

    for (;;) {
        ssize_t got = pread(in, piece, COPY_PIECE, (off_t)off);
        int err;

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        err = is_zero(piece, (size_t)got) ? 0 : write_all(out, piece, (size_t)got, off);
        if (err != 0)
            return err;
        off += (uint64_t)got;
        tree->copied_bytes += (uint64_t)got;
        if (tree->progress != NULL)
            progress_add(tree->progress, (uint64_t)got);
    }
    return ftruncate(out, (off_t)off) != 0 || fsync(out) != 0 ? -errno : (int64_t)off;
}

int tree_copy(struct tree *tree, int from, const char *name, int to)
{
    int in = openat(from, name, O_RDONLY | O_CLOEXEC), out, err = 0;
    char *piece;
    int64_t done;

    if (in < 0)
        return told(name, "", -errno);
    out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0) {
        err = told(name, "cannot be made", -errno);
        close(in);
        return err;
    }
    piece = must_alloc(COPY_PIECE);
    MAYBE(posix_fadvise(in, 0, 0, POSIX_FADV_SEQUENTIAL) == 0);
    done = copy_bytes(tree, in, out, piece);
    if (done < 0 && tree->progress != NULL)
        progress_clear(tree->progress);
    if (done < 0)
        err = told(name, "cannot be copied", (int)done);
    like_it(out, in, 0777);
    mem_free(piece);
    close(in);
    close(out);
    return err;
}

int tree_take(struct tree *tree, int from, const char *name, int to)
{
    int err = tree->must_copy ? -EXDEV : tree_link(tree, from, name, to);

    if (err != -EXDEV)
        return err;
    tree->must_copy = true;
    return tree_copy(tree, from, name, to);
}

int tree_put(struct tree *tree, int to, const char *name, struct bytes data, uint64_t size, int like)
{
    int fd = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), err;

    if (fd < 0)
        return told(name, "cannot be made", -errno);
    err = write_all(fd, data.data, data.len, 0);
    if (err == 0 && (ftruncate(fd, (off_t)size) != 0 || fsync(fd) != 0))
        err = -errno;
    like_it(fd, like, 0666);
    close(fd);
    tree->copied_bytes += data.len;
    return err == 0 ? 0 : told(name, "cannot be written", err);
}

/* ---- the end ---------------------------------------------------------------------------------- */

static void fds_close(struct tree *tree)
{
    while (tree->count > 0)
        close(tree->fds[--tree->count]);
}

static int parent_sync(const char *path)
{
    char parent[TREE_PATH_MAX];
    int fd, err = path_parent(bytes_of_string(path), parent, sizeof(parent));

    if (err != 0)
        return err;
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        err = -errno;
    if (fd >= 0)
        close(fd);
    return err;
}

int tree_end(struct tree *tree)
{
    int err = 0;

    for (unsigned i = tree->count; i > 0 && err == 0; i--) /* N1 */
        if (fsync(tree->fds[i - 1]) != 0)
            err = -errno;
    if (err == 0 && rename(tree->part, tree->path) != 0)
        err = -errno;
    if (err == 0)
        err = parent_sync(tree->path);
    if (err == 0) {
        fds_close(tree);
        return 0;
    }
    MAYBE(told(tree->path, "cannot be finished", err) != 0);
    tree_drop(tree);
    return err;
}

void tree_drop(struct tree *tree)
{
    if (tree->count == 0)
        return;
    MAYBE(tree_remove(tree->part) != 0);
    fds_close(tree);
}
