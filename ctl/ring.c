/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/ring.h"

#include "backend/store/ring.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/io/io_ev.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_SIZE 32u /* backend/directory.h */

/* The directory's name lies beside its shards, which may be links to elsewhere. ERR_CORRUPT: told; -ENOENT: it has none. */
static int name_read(const struct shard *shard, char name[NAME_SIZE + 1])
{
    char path[SHARD_PATH_MAX];
    const char *slash = strrchr(shard->dir, '/'), *last = slash != NULL ? slash + 1 : shard->dir;
    FILE *file;
    size_t len;

    if (strncmp(last, "shard-", 6) == 0)
        (void)snprintf(path, sizeof(path), "%.*snode.id", (int)(last - shard->dir), shard->dir);
    else
        (void)snprintf(path, sizeof(path), "%s/../node.id", shard->dir);
    file = fopen(path, "re");
    if (file == NULL && errno == ENOENT)
        return -ENOENT;
    len = file != NULL ? fread(name, 1, NAME_SIZE, file) : 0;
    name[len] = '\0';
    if (file != NULL)
        fclose(file);
    if (len == NAME_SIZE && strspn(name, "0123456789abcdef") == NAME_SIZE)
        return 0;
    report_damage(shard->report, path, 0, "it is not the name of a directory, so its log ring is not known, and a start is "
                  "refused");
    return ERR_CORRUPT;
}

static int file_read(const char *path, char **data, size_t *size, unsigned *mode)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    size_t at = 0;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &status) != 0 || status.st_size <= 0) {
        close(fd);
        *size = 0; /* it was never begun */
        return 0;
    }
    *size = MIN((size_t)status.st_size, (size_t)(2ull * RING_PAGES_MAX * PAGE_SIZE_)); /* a ring is smaller */
    *mode = (unsigned)status.st_mode & 07777;
    *data = mem_alloc_aligned(*size, PAGE_SIZE_);
    while (*data != NULL && at < *size) {
        ssize_t len = read(fd, *data + at, *size - at);

        if (len <= 0)
            break;
        at += (size_t)len;
    }
    close(fd);
    return *data == NULL ? ERR_FULL : at < *size ? -EIO : 0;
}

int ring_open(const struct shard *shard, struct ring *out)
{
    char name[NAME_SIZE + 1];
    const struct ring_header *header;
    unsigned char boot[16];
    enum ring_kind kind;
    size_t size = 0;
    int err;

    *out = (struct ring){.state = RING_NONE};
    err = name_read(shard, name);
    if (err != 0)
        return err == -ENOENT ? 0 : err;
    (void)snprintf(out->path, sizeof(out->path), "/dev/shm/weir-%s-%u", name, shard->file.shard); /* process.c's */
    err = file_read(out->path, &out->data, &size, &out->mode);
    if (err == -ENOENT)
        return 0;
    if (err != 0) {
        fprintf(stderr, "weirctl: %s: its log ring %s: %s\n", shard->dir, out->path, err_text(err));
        ring_close(out);
        return err;
    }
    out->state = RING_FOREIGN;
    err = io_ev_host_boot_id(boot);
    if (err != 0) {
        fprintf(stderr, "weirctl: when this host was started cannot be told: %s\n", err_text(err));
        ring_close(out);
        return err;
    }
    if (size == 0)
        return 0;
    out->page_count = ring_page_count(size);
    header = (const struct ring_header *)(const void *)out->data;
    kind = out->page_count == 0 ? RING_KIND_DAMAGED
                                : ring_kind_of(out->data, out->page_count, shard->file.shard, boot, shard->file.uuid);
    if (kind == RING_KIND_DAMAGED && shard->was_open)
        out->state = RING_DAMAGED;
    if (kind != RING_KIND_OURS)
        return 0;
    out->state = RING_THERE;
    out->appended = header->appended;
    return 0;
}

void ring_rest(const struct ring *ring, uint64_t lsn, struct ring_rest *out)
{
    uint64_t records = 0;
    uint32_t count;
    struct ring_frame *frames;

    *out = (struct ring_rest){0};
    frames = ring_frames(ring->data, ring->page_count, &count, &out->bad_off);
    for (uint32_t i = 0; i < count; i++) {
        const struct frame *frame = &frames[i].frame;

        if (frame->first_lsn <= lsn)
            continue;
        records += frame->record_count;
        if ((frame->flags & FRAME_CONTINUES) != 0 || records == 0)
            continue;
        out->records = records;
        out->lsn = frame->last_lsn;
    }
    mem_free(frames);
}

void ring_close(struct ring *ring)
{
    mem_free(ring->data);
    *ring = (struct ring){.state = RING_NONE};
}
