/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/source.h"

#include "ctl/tree.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

/* "given_lsn I N" */
static void given_take(struct source *source, const char *line)
{
    char *end;
    unsigned long i = strtoul(line, &end, 10);
    uint64_t lsn;

    if (*end == ' ' && i < source->count && bytes_to_u64(bytes_of_string(end + 1), STORE_LSN_MAX, &lsn))
        source->shards[i].given_lsn = MAX(source->shards[i].given_lsn, lsn);
}

/* `source`: of that directory; NULL: only the time is asked for. */
static uint64_t info_read(const char *dir, struct source *source)
{
    char path[SHARD_PATH_MAX], line[64];
    uint64_t taken = 0;
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/" SOURCE_FILE, dir);
    file = fopen(path, "re");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "taken_ms ", 9) == 0 && !bytes_to_u64(bytes_of_string(line + 9), UINT64_MAX, &taken))
            taken = 0;
        if (source != NULL && strncmp(line, "given_lsn ", 10) == 0)
            given_take(source, line + 10);
    }
    fclose(file);
    return taken;
}

uint64_t source_taken_ms(const char *dir)
{
    return info_read(dir, NULL);
}

static int source_each(void *arg, const char *dir)
{
    struct source *source = arg;
    struct shard *shard = &source->shards[source->count];
    int err;

    if (source->count == SHARDS_MAX)
        return ERR_FULL;
    err = shard_open(dir, &source->report, shard);
    if (err != 0) {
        fprintf(stderr, "weirctl: %s: %s\n", dir,
                err == ERR_CORRUPT ? "it is no shard's folder, or is damaged: weirctl salvage reads what can be read"
                                   : err_text(err));
        return err;
    }
    source->count++;
    source->bytes += shard->bytes;
    return 0;
}

static int source_check(const struct source *source)
{
    for (uint32_t i = 0; i < source->count; i++) {
        const struct shard_file *file = &source->shards[i].file;

        if (file->shard == i && file->shard_count == source->count)
            continue;
        if (source->count == 1 && file->shard_count > 1)
            fprintf(stderr, "weirctl: %s: one shard of %u; the folder with all of them is wanted\n", source->dir,
                    file->shard_count);
        else
            fprintf(stderr, "weirctl: %s: it says that it is shard %u of %u, and there are %u\n",
                    source->shards[i].dir, file->shard, file->shard_count, source->count);
        return ERR_INVALID;
    }
    return 0;
}

int source_open(struct source *source, const char *dir)
{
    int err;

    *source = (struct source){.dir = dir, .report = {.out = stderr, .lines_max = 20}};
    source->shards = must_zalloc(SHARDS_MAX * sizeof(*source->shards));
    err = shards_each(dir, stderr, source_each, source);
    if (err == 0)
        err = source_check(source);
    if (err == 0) {
        source->taken_ms = info_read(dir, source);
        return 0;
    }
    source_close(source);
    return err;
}

int source_outside(const struct source *source, const char *path)
{
    int err = tree_outside(path, source->dir);

    for (uint32_t i = 0; i < source->count && err == 0; i++)
        err = tree_outside(path, source->shards[i].dir);
    return err;
}

void source_close(struct source *source)
{
    for (uint32_t i = 0; i < source->count; i++)
        shard_close(&source->shards[i]);
    mem_free(source->shards);
    source->shards = NULL;
    source->count = 0;
}

/* ---- the lock --------------------------------------------------------------------------------- */

static int shard_lock(const struct shard *shard)
{
    int fd = openat(shard->dir_fd, "lock", O_RDONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT) /* a backup has none */
        fd = openat(shard->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == 0)
        return fd;
    if (fd >= 0 && errno == EWOULDBLOCK)
        fprintf(stderr, "weirctl: %s: a node has it open; back that up by its address, as in weirctl backup "
                "127.0.0.1:7000 DEST\n", shard->dir);
    else
        fprintf(stderr, "weirctl: %s/lock: %s\n", shard->dir, err_text(-errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

int source_lock(struct source *source, int locks[SHARDS_MAX])
{
    for (uint32_t i = 0; i < source->count; i++) {
        locks[i] = shard_lock(&source->shards[i]);
        if (locks[i] >= 0)
            continue;
        while (i > 0)
            close(locks[--i]);
        return ERR_EXISTS;
    }
    return 0;
}

void source_unlock(const struct source *source, const int locks[SHARDS_MAX])
{
    for (uint32_t i = 0; i < source->count; i++)
        close(locks[i]);
}

/* ---- segments --------------------------------------------------------------------------------- */

bool source_keeps(const struct shard *shard, const struct shard_segment *segment)
{
    char page[PAGE_SIZE_];
    bool is_blank = true;
    int fd;

    if (!segment->is_free)
        return true;
    if (segment->has_header) /* it says so itself */
        return false;
    fd = openat(shard->dir_fd, segment->name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true;
    for (int i = 0; i < 2 && is_blank; i++)
        is_blank = pread(fd, page, sizeof(page), (off_t)i * PAGE_SIZE_) == (ssize_t)sizeof(page) && page[0] == 0 &&
                   memcmp(page, page + 1, sizeof(page) - 1) == 0;
    close(fd);
    return !is_blank;
}
