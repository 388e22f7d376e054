/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that outlives the process, and the boot that it lives in. Synchronous: used at start and end.
 *
 * The file's blocks are reserved before it is mapped: a full /dev/shm is an error here, not a SIGBUS at some
 * later store. What is not a plain file of ours with that size and no rights for others is removed and made anew,
 * never followed or opened as it is.
 */
#include "common/io/io_ev_private.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Its size, if it is ours; else 0. */
static size_t shared_size(int fd)
{
    struct stat stat;

    return fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && stat.st_uid == geteuid() && (stat.st_mode & 077) == 0
               ? (size_t)stat.st_size
               : 0;
}

/* The descriptor of what is there; -ENOENT: nothing that could be ours; else why nobody can tell. */
static int shared_find(int dir, const char *path)
{
    int fd = openat(dir, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd >= 0)
        return fd;
    return errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EINTR ? -errno : -ENOENT;
}

/* The descriptor, or -errno. */
static int shared_open(int dir, const char *path, size_t size, bool *existed)
{
    int fd = shared_find(dir, path);
    int err = 0;

    if (fd < 0 && fd != -ENOENT)
        return fd;
    *existed = fd >= 0 && shared_size(fd) == size;
    if (*existed)
        return fd;
    if (fd >= 0)
        close(fd);
    if (unlinkat(dir, path, 0) < 0 && errno != ENOENT)
        return -errno;
    fd = openat(dir, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
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
    int fd = shared_find(io_ev_of(io)->dir_fd, path);

    if (fd < 0)
        return fd;
    *size = shared_size(fd);
    close(fd);
    return *size > 0 && *size % 4096 == 0 ? 0 : -ENOENT;
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
