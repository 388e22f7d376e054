/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that outlives the process, and the boot that it lives in. Synchronous: used at start and end.
 *
 * The file's blocks are reserved before it is mapped: a full /dev/shm is an error here, not a SIGBUS at some
 * later store. Mapped is only a plain file of ours with no rights for others: nobody else has written to it. What else has
 * the name may still hold all that a dead process of ours has answered (a start as another user, a mode that was changed),
 * so it is refused and left where it is, never followed, mapped or removed.
 */
#include "common/io/io_ev_private.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_ours(const struct stat *stat)
{
    return S_ISREG(stat->st_mode) && stat->st_uid == geteuid() && (stat->st_mode & 077) == 0;
}

/* The descriptor of what is there, and its size. Errors: -ENOENT: nothing; ERR_EXISTS: what is not ours; else why nobody
 * can tell. */
static int shared_find(int dir, const char *path, size_t *size)
{
    int fd = openat(dir, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat stat;
    int err;

    if (fd < 0) {
        err = -errno;
        if (err != -EACCES && err != -ELOOP && err != -EISDIR && err != -ENXIO)
            return err;
        return fstatat(dir, path, &stat, AT_SYMLINK_NOFOLLOW) == 0 ? ERR_EXISTS : err;
    }
    err = fstat(fd, &stat) < 0 ? -errno : is_ours(&stat) ? 0 : ERR_EXISTS;
    if (err != 0) {
        close(fd);
        return err;
    }
    *size = (size_t)stat.st_size;
    return fd;
}

static int shared_make(int dir, const char *path, size_t size)
{
    int fd = openat(dir, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    int err = 0;

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) < 0)
        err = -errno;
    if (err == 0)
        err = -posix_fallocate(fd, 0, (off_t)size);
    if (err == 0)
        return fd;
    close(fd);
    MAYBE(unlinkat(dir, path, 0) == 0);
    return err;
}

/* The descriptor, or -errno. */
static int shared_open(int dir, const char *path, size_t size, bool *existed)
{
    size_t there;
    int fd = shared_find(dir, path, &there);

    if (fd < 0 && fd != -ENOENT)
        return fd;
    *existed = fd >= 0 && there == size;
    if (*existed)
        return fd;
    if (fd >= 0)
        close(fd);
    if (fd >= 0 && unlinkat(dir, path, 0) < 0 && errno != ENOENT)
        return -errno;
    return shared_make(dir, path, size);
}

int io_ev_shared_map(struct io *io, const char *path, size_t size, void **addr, bool *existed)
{
    int fd = shared_open(io_ev_of(io)->dir_fd, path, size, existed);
    void *mapped;
    int err;

    if (fd < 0)
        return fd;
    mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    err = mapped == MAP_FAILED ? -errno : 0;
    close(fd);
    if (err == 0)
        *addr = mapped;
    return err;
}

int io_ev_shared_size(struct io *io, const char *path, size_t *size)
{
    int fd = shared_find(io_ev_of(io)->dir_fd, path, size);

    if (fd < 0)
        return fd;
    close(fd);
    return *size > 0 ? 0 : -ENOENT;
}

static const char *kind_text(mode_t mode)
{
    return S_ISREG(mode) ? "a file" : S_ISLNK(mode) ? "a symbolic link" : S_ISDIR(mode) ? "a directory" : "a special file";
}

void io_ev_shared_why(struct io *io, const char *path, char *out, size_t size)
{
    struct stat stat;

    if (fstatat(io_ev_of(io)->dir_fd, path, &stat, AT_SYMLINK_NOFOLLOW) < 0)
        (void)snprintf(out, size, "it cannot be looked at: %s", err_text(-errno));
    else
        (void)snprintf(out, size, "it is %s of uid %u with mode %04o, wanted is a file of uid %u with mode 0600",
                       kind_text(stat.st_mode), (unsigned)stat.st_uid, (unsigned)stat.st_mode & 07777,
                       (unsigned)geteuid());
}

void io_ev_shared_unmap(struct io *io, void *addr, size_t size)
{
    (void)io;
    ASSERT(munmap(addr, size) == 0);
}

int io_ev_shared_remove(struct io *io, const char *path)
{
    return unlinkat(io_ev_of(io)->dir_fd, path, 0) < 0 ? -errno : 0;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "b1f5dd2c-2a6d-..." */
int io_ev_host_boot_id(unsigned char out[16])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    char text[64];
    ssize_t len;
    unsigned count = 0;

    if (fd < 0)
        return -errno;
    len = read(fd, text, sizeof(text));
    close(fd);
    memset(out, 0, 16);
    for (ssize_t i = 0; i < len && count < 32; i++) {
        int digit = hex_digit(text[i]);

        if (digit < 0)
            continue;
        out[count / 2] = (unsigned char)(out[count / 2] << 4 | digit);
        count++;
    }
    return count == 32 ? 0 : ERR_UNSUPPORTED;
}

int io_ev_boot_id(struct io *io, unsigned char out[16])
{
    (void)io;
    return io_ev_host_boot_id(out);
}
