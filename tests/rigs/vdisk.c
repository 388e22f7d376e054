/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk whose write cache forgets: one file "disk" in a FUSE file system of our own, to be used through a loop device
 * with a real file system on it.
 *
 *     vdisk MOUNT_POINT MEGABYTES LOST_PERCENT SEED
 *
 *     WRITE ──> live (what is read) ── FSYNC ──> durable
 *                        └── SIGUSR1: the power is cut. Of all sectors of 512 bytes that were not flushed, LOST_PERCENT
 *                            are again what they were; from then on every request fails with EIO
 *                            SIGUSR2: the power is back
 *
 *     SIGRTMIN + n: one request fails, by faults[n]; what it was for stays as it was
 *
 * It says "ready" on its standard output when it is mounted, and what it lost on each cut. Its end is the file system's:
 * umount MOUNT_POINT. It speaks to /dev/fuse itself, since a test may need no more than the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR    512u
#define WRITE_MAX (128u << 10)
#define BUFFER    (WRITE_MAX + 8192u)
#define DISK_NODE 2u

struct vdisk {
    int fd;
    char *live, *durable;
    unsigned char *dirty; /* a byte a sector */
    uint64_t size, random, writes, flushes;
    unsigned lost_percent;
    bool is_off;
};

static const struct fault {
    uint32_t opcode;
    int error;
    const char *name;
} faults[] = {
    {FUSE_FSYNC, EIO, "flush EIO"},
    {FUSE_WRITE, EIO, "write EIO"},
    {FUSE_FSYNC, ENOSPC, "flush ENOSPC"},
    {FUSE_WRITE, ENOSPC, "write ENOSPC"},
};
#define FAULTS (sizeof(faults) / sizeof(faults[0]))

/* The only things that signals touch. */
static volatile sig_atomic_t power_cut, power_back, fault_wanted[FAULTS];

static void on_signal(int signo)
{
    if (signo == SIGUSR1)
        power_cut = 1;
    else if (signo == SIGUSR2)
        power_back = 1;
    else
        fault_wanted[signo - SIGRTMIN] = 1;
}

static void *pages(uint64_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return at == MAP_FAILED ? NULL : at;
}

static uint64_t draw(struct vdisk *disk)
{
    disk->random ^= disk->random << 13;
    disk->random ^= disk->random >> 7;
    disk->random ^= disk->random << 17;
    return disk->random;
}

static void cut(struct vdisk *disk)
{
    uint64_t lost = 0, kept = 0;

    for (uint64_t i = 0; i < disk->size / SECTOR; i++) {
        if (!disk->dirty[i])
            continue;
        disk->dirty[i] = 0;
        if (draw(disk) % 100 < disk->lost_percent) {
            memcpy(disk->live + i * SECTOR, disk->durable + i * SECTOR, SECTOR);
            lost++;
        } else {
            memcpy(disk->durable + i * SECTOR, disk->live + i * SECTOR, SECTOR);
            kept++;
        }
    }
    disk->is_off = true;
    printf("cut lost=%llu kept=%llu writes=%llu flushes=%llu\n", (unsigned long long)lost, (unsigned long long)kept,
           (unsigned long long)disk->writes, (unsigned long long)disk->flushes);
    (void)fflush(stdout);
}

static void flush(struct vdisk *disk)
{
    for (uint64_t i = 0; i < disk->size / SECTOR; i++) {
        if (!disk->dirty[i])
            continue;
        memcpy(disk->durable + i * SECTOR, disk->live + i * SECTOR, SECTOR);
        disk->dirty[i] = 0;
    }
    disk->flushes++;
}

static void reply(struct vdisk *disk, const struct fuse_in_header *in, int error, const void *data, size_t len)
{
    struct fuse_out_header out = {.len = (uint32_t)(sizeof(out) + len), .error = -error, .unique = in->unique};
    struct iovec parts[2] = {{&out, sizeof(out)}, {(void *)(uintptr_t)data, len}};

    if (writev(disk->fd, parts, len > 0 ? 2 : 1) < 0 && errno != ENOENT)
        perror("vdisk: reply");
}

static void attributes(const struct vdisk *disk, uint64_t node, struct fuse_attr *attr)
{
    memset(attr, 0, sizeof(*attr));
    attr->ino = node;
    attr->mode = node == DISK_NODE ? S_IFREG | 0600 : S_IFDIR | 0755;
    attr->nlink = 1;
    attr->size = node == DISK_NODE ? disk->size : 0;
    attr->blocks = attr->size / SECTOR;
    attr->blksize = 4096;
}

static void do_init(struct vdisk *disk, const struct fuse_in_header *in)
{
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION, .minor = 31, .max_background = 16, .congestion_threshold = 12,
        .max_write = WRITE_MAX, .flags = FUSE_BIG_WRITES,
    };

    reply(disk, in, 0, &out, sizeof(out));
}

static void do_lookup(struct vdisk *disk, const struct fuse_in_header *in, const char *name)
{
    struct fuse_entry_out out = {.nodeid = DISK_NODE, .entry_valid = 3600, .attr_valid = 3600};

    if (strcmp(name, "disk") != 0) {
        reply(disk, in, ENOENT, NULL, 0);
        return;
    }
    attributes(disk, DISK_NODE, &out.attr);
    reply(disk, in, 0, &out, sizeof(out));
}

static void do_write(struct vdisk *disk, const struct fuse_in_header *in, const struct fuse_write_in *write)
{
    struct fuse_write_out out = {.size = write->size};

    if (disk->is_off || write->offset > disk->size || write->size > disk->size - write->offset) {
        reply(disk, in, EIO, NULL, 0);
        return;
    }
    memcpy(disk->live + write->offset, write + 1, write->size);
    for (uint64_t i = write->offset / SECTOR; i < (write->offset + write->size + SECTOR - 1) / SECTOR; i++)
        disk->dirty[i] = 1;
    disk->writes++;
    reply(disk, in, 0, &out, sizeof(out));
}

static void do_read(struct vdisk *disk, const struct fuse_in_header *in, const struct fuse_read_in *read)
{
    uint64_t left = read->offset < disk->size ? disk->size - read->offset : 0;

    if (disk->is_off)
        reply(disk, in, EIO, NULL, 0);
    else
        reply(disk, in, 0, disk->live + read->offset, read->size < left ? read->size : left);
}

static void do_fsync(struct vdisk *disk, const struct fuse_in_header *in)
{
    if (!disk->is_off)
        flush(disk);
    reply(disk, in, disk->is_off ? EIO : 0, NULL, 0);
}

static void do_open(struct vdisk *disk, const struct fuse_in_header *in)
{
    /* Past the page cache: a write is with us when it has returned. */
    struct fuse_open_out out = {.fh = 1, .open_flags = in->opcode == FUSE_OPEN ? FOPEN_DIRECT_IO : 0};

    reply(disk, in, 0, &out, sizeof(out));
}

static void do_attr(struct vdisk *disk, const struct fuse_in_header *in)
{
    struct fuse_attr_out out = {.attr_valid = 3600};

    attributes(disk, in->nodeid, &out.attr);
    reply(disk, in, 0, &out, sizeof(out));
}

static void do_statfs(struct vdisk *disk, const struct fuse_in_header *in)
{
    struct fuse_statfs_out out = {.st = {.bsize = 4096, .namelen = 255}};

    reply(disk, in, 0, &out, sizeof(out));
}

/* Whether it fails, and has been answered. */
static bool fails(struct vdisk *disk, const struct fuse_in_header *in)
{
    for (size_t i = 0; i < FAULTS; i++) {
        if (!fault_wanted[i] || faults[i].opcode != in->opcode)
            continue;
        fault_wanted[i] = 0;
        printf("failed %s\n", faults[i].name);
        (void)fflush(stdout);
        reply(disk, in, faults[i].error, NULL, 0);
        return true;
    }
    return false;
}

static void request(struct vdisk *disk, const struct fuse_in_header *in)
{
    const void *body = in + 1;

    if (fails(disk, in))
        return;
    switch (in->opcode) {
    case FUSE_INIT: do_init(disk, in); break;
    case FUSE_LOOKUP: do_lookup(disk, in, body); break;
    case FUSE_GETATTR:
    case FUSE_SETATTR: do_attr(disk, in); break;
    case FUSE_OPEN:
    case FUSE_OPENDIR: do_open(disk, in); break;
    case FUSE_READ: do_read(disk, in, body); break;
    case FUSE_WRITE: do_write(disk, in, body); break;
    case FUSE_FSYNC: do_fsync(disk, in); break;
    case FUSE_STATFS: do_statfs(disk, in); break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET: break;
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_ACCESS: reply(disk, in, 0, NULL, 0); break;
    default: reply(disk, in, ENOSYS, NULL, 0); break;
    }
}

static int serve(struct vdisk *disk)
{
    static char buffer[BUFFER] __attribute__((aligned(8)));

    for (;;) {
        ssize_t len = read(disk->fd, buffer, sizeof(buffer));

        if (power_cut) {
            power_cut = 0;
            cut(disk);
        }
        if (power_back) {
            power_back = 0;
            disk->is_off = false;
        }
        if (len >= (ssize_t)sizeof(struct fuse_in_header))
            request(disk, (const struct fuse_in_header *)(const void *)buffer);
        else if (len < 0 && errno != EINTR && errno != ENOENT)
            return errno == ENODEV ? 0 : 1; /* unmounted */
    }
}

int main(int argc, char **argv)
{
    struct vdisk disk = {0};
    struct sigaction action = {.sa_handler = on_signal};
    char options[128];

    if (argc != 5) {
        (void)fprintf(stderr, "usage: vdisk MOUNT_POINT MEGABYTES LOST_PERCENT SEED\n");
        return 2;
    }
    disk.size = strtoull(argv[2], NULL, 10) << 20;
    disk.lost_percent = (unsigned)strtoul(argv[3], NULL, 10);
    disk.random = strtoull(argv[4], NULL, 10) * 2654435761u + 1;
    disk.live = pages(disk.size);
    disk.durable = pages(disk.size);
    disk.dirty = pages(disk.size / SECTOR);
    (void)sigaction(SIGUSR1, &action, NULL);
    (void)sigaction(SIGUSR2, &action, NULL);
    for (size_t i = 0; i < FAULTS; i++)
        (void)sigaction(SIGRTMIN + (int)i, &action, NULL);
    disk.fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (disk.live == NULL || disk.durable == NULL || disk.dirty == NULL || disk.fd < 0) {
        perror("vdisk: /dev/fuse");
        return 1;
    }
    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", disk.fd);
    if (mount("vdisk", argv[1], "fuse", MS_NODEV | MS_NOSUID, options) != 0) {
        perror("vdisk: mount");
        return 1;
    }
    printf("ready\n");
    (void)fflush(stdout);
    return serve(&disk);
}
