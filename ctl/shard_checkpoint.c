/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/shard.h"

#include "backend/store/key_hash.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_whole(int fd, char *data, size_t size, uint64_t off)
{
    for (size_t at = 0; at < size;) {
        ssize_t got = pread(fd, data + at, size - at, (off_t)(off + at));

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 ? ERR_EOF : -errno;
        at += (size_t)got;
    }
    return 0;
}

void shard_checkpoint_free(struct shard_checkpoint *checkpoint)
{
    mem_free(checkpoint->pages);
    mem_free(checkpoint->pages_bad);
    checkpoint->pages = NULL;
    checkpoint->pages_bad = NULL;
}

/* META with its rows. False: told why not. */
static bool meta_read(struct shard *shard, struct shard_checkpoint *c)
{
    const struct checkpoint_slot *slot = &c->slot;
    char path[SHARD_PATH_MAX], *data = NULL;
    const char *what = NULL;
    int fd, err = 0;

    shard_path(shard, c->name, path);
    fd = openat(shard->dir_fd, c->name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        report_damage(shard->report, path, 0, "cannot be opened: %s", err_text(-errno));
        return false;
    }
    data = must_alloc((size_t)slot->meta_len);
    err = read_whole(fd, data, (size_t)slot->meta_len, slot->meta_off);
    close(fd);
    if (err != 0)
        what = err_text(err);
    else if (!checkpoint_meta_is_valid(slot, data))
        what = "META does not verify";
    if (what == NULL) {
        size_t start = checkpoint_meta_take(data, &c->meta), size = (size_t)slot->meta_len - start;

        c->pages = must_alloc(size);
        memcpy(c->pages, data + start, size);
        c->pages_bad = must_zalloc(c->meta.page_count);
        for (uint32_t i = 0; i < c->meta.page_count && what == NULL; i++) {
            c->lsn_max = MAX(c->lsn_max, c->pages[i].lsn);
            if (c->pages[i].len < CHECKPOINT_PAGE_HEADER || c->pages[i].off > slot->meta_off ||
                c->pages[i].len > slot->meta_off - c->pages[i].off)
                what = "META names pages that cannot be";
        }
    }
    mem_free(data);
    if (what != NULL) {
        report_damage(shard->report, path, slot->meta_off, "%s", what);
        shard_checkpoint_free(c);
    }
    return what == NULL;
}

static bool is_blank(const char *data, size_t size)
{
    return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

unsigned shard_checkpoints(struct shard *shard, struct shard_checkpoint out[2])
{
    char page[CHECKPOINT_SLOT_SIZE], path[SHARD_PATH_MAX];
    struct checkpoint_slot slots[2] = {{0}};
    int fd = openat(shard->dir_fd, "MANIFEST", O_RDONLY | O_CLOEXEC);
    unsigned count = 0, newer;

    memset(out, 0, 2 * sizeof(out[0]));
    shard_path(shard, "MANIFEST", path);
    if (fd < 0) {
        if (errno != ENOENT)
            report_damage(shard->report, path, 0, "cannot be opened: %s", err_text(-errno));
        return 0;
    }
    for (unsigned i = 0; i < 2; i++) {
        int err = read_whole(fd, page, sizeof(page), (uint64_t)i * sizeof(page));

        if (err == ERR_EOF) /* made, and not written yet */
            continue;
        memcpy(&slots[i], page, sizeof(slots[i]));
        if (err != 0 || (!is_blank(page, sizeof(page)) && !checkpoint_slot_is_valid(&slots[i], i))) {
            report_damage(shard->report, path, (uint64_t)i * sizeof(page), "a slot does not verify");
            slots[i].generation = 0;
        }
    }
    close(fd);
    newer = slots[1].generation > slots[0].generation;
    for (unsigned i = 0; i < 2; i++) {
        struct shard_checkpoint *c = &out[count];

        *c = (struct shard_checkpoint){.slot = slots[i == 0 ? newer : 1 - newer]};
        (void)snprintf(c->name, sizeof(c->name), "checkpoint.%llu", (unsigned long long)c->slot.file);
        if (c->slot.generation != 0 && meta_read(shard, c))
            count++;
    }
    return count;
}

/* ---- pages ------------------------------------------------------------------------------------ */

struct page_walk {
    uint64_t seed;
    uint32_t page;
    unsigned bits;
    int (*each)(void *arg, uint32_t page, const struct checkpoint_key *key, uint64_t hash);
    void *arg;
};

/* 0, ERR_CORRUPT, or what each() returned; with `each` NULL it is only looked at. */
static int page_keys(const struct page_walk *walk, struct bytes data, uint32_t entries)
{
    struct bytes cursor = bytes_skip(data, CHECKPOINT_PAGE_HEADER);

    for (uint32_t i = 0; i < entries; i++) {
        struct checkpoint_key key;
        uint64_t hash;
        int err;

        if (!checkpoint_key_take(&cursor, &key))
            return ERR_CORRUPT;
        hash = key_hash(walk->seed, key.db, key.key);
        if ((hash & ((1ull << walk->bits) - 1)) != walk->page)
            return ERR_CORRUPT;
        err = walk->each != NULL ? walk->each(walk->arg, walk->page, &key, hash) : 0;
        if (err != 0)
            return err;
    }
    return cursor.len == 0 ? 0 : ERR_CORRUPT;
}

int shard_checkpoint_each(struct shard *shard, struct shard_checkpoint *c,
                          int (*each)(void *arg, uint32_t page, const struct checkpoint_key *key, uint64_t hash),
                          void *arg)
{
    struct page_walk walk = {.seed = shard_hash_seed(shard), .bits = c->meta.bits};
    char path[SHARD_PATH_MAX], *data = NULL;
    size_t cap = 0;
    int fd, err = 0;

    shard_path(shard, c->name, path);
    fd = openat(shard->dir_fd, c->name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (uint32_t i = 0; i < c->meta.page_count && err == 0; i++) {
        const struct checkpoint_page *row = &c->pages[i];
        struct bytes bytes;

        if (row->len > cap) {
            cap = row->len;
            mem_free(data);
            data = must_alloc(cap);
        }
        bytes = bytes_of(data, row->len);
        walk.page = i;
        walk.each = NULL;
        err = read_whole(fd, data, row->len, row->off);
        if (err != 0 || !checkpoint_page_is_valid(bytes, row, c->meta.bits, i) ||
            page_keys(&walk, bytes, row->entries) != 0) {
            report_damage(shard->report, path, row->off, "a page of the checkpoint: %s",
                          err != 0 ? err_text(err) : "it does not verify");
            c->pages_bad[i] = 1;
            err = 0;
            continue;
        }
        walk.each = each;
        walk.arg = arg;
        err = each != NULL ? page_keys(&walk, bytes, row->entries) : 0;
    }
    mem_free(data);
    close(fd);
    return err;
}
