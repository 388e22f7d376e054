/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a simulated disk: their bytes as they are read, as they are durable, and what is
 * between.
 *
 * A write changes the cache and leaves a pending entry: the whole sectors that it touched, as they
 * are after it, and the file's size. Entries are applied to the durable image in their order, by a
 * flush or (when too much is pending) by the kernel on its own; a power cut decides over each
 * sector.
 */
#include "common/io/io_sim_disk_private.h"

/* ---- images ------------------------------------------------------------------------------- */

static void image_reserve(struct sim_image *image, uint64_t page_count)
{
    if (page_count <= image->page_count)
        return;
    page_count = MAX(page_count, image->page_count + image->page_count / 2);
    image->pages = must_realloc(image->pages, page_count * sizeof(char *));
    memset(image->pages + image->page_count, 0,
           (page_count - image->page_count) * sizeof(char *));
    image->page_count = page_count;
}

void sim_image_write(struct sim_image *image, const void *data, size_t len, uint64_t off)
{
    const char *at = data;

    if (len == 0)
        return;
    image->page_end = MAX(image->page_end, (off + len + PAGE_SIZE_ - 1) / PAGE_SIZE_);
    image_reserve(image, image->page_end);
    while (len > 0) {
        char **page = &image->pages[off / PAGE_SIZE_];
        size_t start = off % PAGE_SIZE_, part = MIN(len, PAGE_SIZE_ - start);

        if (*page == NULL)
            *page = must_zalloc(PAGE_SIZE_);
        memcpy(*page + start, at, part);
        at += part;
        off += part;
        len -= part;
    }
}

/* Zeros where there is nothing. */
void sim_image_read(const struct sim_image *image, void *data, size_t len, uint64_t off)
{
    char *at = data;

    while (len > 0) {
        size_t start = off % PAGE_SIZE_, part = MIN(len, PAGE_SIZE_ - start);
        uint64_t index = off / PAGE_SIZE_;

        if (index < image->page_count && image->pages[index] != NULL)
            memcpy(at, image->pages[index] + start, part);
        else
            memset(at, 0, part);
        at += part;
        off += part;
        len -= part;
    }
}

void sim_image_resize(struct sim_image *image, uint64_t size)
{
    uint64_t keep = (size + PAGE_SIZE_ - 1) / PAGE_SIZE_;

    for (uint64_t i = keep; i < image->page_end; i++) {
        mem_free(image->pages[i]);
        image->pages[i] = NULL;
    }
    image->page_end = MIN(image->page_end, keep);
    if (size % PAGE_SIZE_ != 0 && keep <= image->page_end && image->pages[keep - 1] != NULL)
        memset(image->pages[keep - 1] + size % PAGE_SIZE_, 0, PAGE_SIZE_ - size % PAGE_SIZE_);
    image->size = size;
}

void sim_image_deinit(struct sim_image *image)
{
    sim_image_resize(image, 0);
    mem_free(image->pages);
    *image = (struct sim_image){0};
}

void sim_image_copy(struct sim_image *to, const struct sim_image *from)
{
    sim_image_deinit(to);
    image_reserve(to, from->page_end);
    to->page_end = from->page_end;
    for (uint64_t i = 0; i < from->page_end; i++) {
        if (from->pages[i] == NULL)
            continue;
        to->pages[i] = must_alloc(PAGE_SIZE_);
        memcpy(to->pages[i], from->pages[i], PAGE_SIZE_);
    }
    to->size = from->size;
}

static uint64_t image_space(const struct sim_image *image, uint64_t reserved_end)
{
    uint64_t reserved = (reserved_end + PAGE_SIZE_ - 1) / PAGE_SIZE_, count = reserved;

    for (uint64_t i = reserved; i < image->page_end; i++)
        count += image->pages[i] != NULL;
    return count * PAGE_SIZE_;
}

/* ---- inodes ------------------------------------------------------------------------------- */

struct sim_inode *sim_inode_create(struct sim_disk *disk, bool is_dir)
{
    struct sim_inode *inode = must_zalloc(sizeof(*inode));

    inode->disk = disk;
    inode->id = ++disk->inode_next;
    inode->is_dir = is_dir;
    list_init(&inode->pending);
    list_push_back(&disk->inodes, &inode->node);
    return inode;
}

static void pending_free(struct sim_pending *pending)
{
    pending->inode->disk->pending_bytes -= (uint64_t)pending->sector_count * SECTOR_SIZE;
    list_remove(&pending->inode_);
    list_remove(&pending->disk_);
    mem_free(pending);
}

static void pending_drop_all(struct sim_inode *inode)
{
    struct list_node *node;

    while ((node = list_first(&inode->pending)) != NULL)
        pending_free(CONTAINER_OF(node, struct sim_pending, inode_));
}

void sim_inode_ref(struct sim_inode *inode)
{
    inode->ref_count++;
}

void sim_inode_unref(struct sim_inode *inode)
{
    ASSERT(inode->ref_count > 0);
    if (--inode->ref_count > 0)
        return;
    ASSERT(inode->live_count == 0);
    pending_drop_all(inode);
    sim_image_deinit(&inode->cache);
    sim_image_deinit(&inode->durable);
    sim_image_deinit(&inode->stale);
    list_remove(&inode->node);
    mem_free(inode);
}

void sim_inode_charge(struct sim_inode *inode)
{
    uint64_t space = inode->live_count == 0 ? 0 : image_space(&inode->cache, inode->reserved_end);

    inode->disk->used += space - inode->charged;
    inode->charged = space;
}

void sim_inode_live(struct sim_inode *inode)
{
    sim_inode_ref(inode);
    if (inode->live_count++ == 0)
        sim_inode_charge(inode);
}

void sim_inode_unlive(struct sim_inode *inode)
{
    ASSERT(inode->live_count > 0);
    if (--inode->live_count == 0)
        sim_inode_charge(inode);
    sim_inode_unref(inode);
}

/* ---- pending ------------------------------------------------------------------------------ */

static void pending_apply(struct sim_pending *pending)
{
    struct sim_inode *inode = pending->inode;

    if (pending->kind == SIM_PENDING_WRITE)
        sim_image_write(&inode->durable, pending->data, pending->sector_count * (size_t)SECTOR_SIZE,
                        pending->sector * SECTOR_SIZE);
    sim_image_resize(&inode->durable, pending->size_after);
}

/* What the kernel writes back on its own, so that what is pending stays bounded. */
static void disk_write_back(struct sim_disk *disk)
{
    while (disk->pending_bytes > disk->sim->options.disk.pending_max &&
           !list_is_empty(&disk->pending)) {
        struct list_node *node = list_first(&disk->pending);
        struct sim_pending *pending = CONTAINER_OF(node, struct sim_pending, disk_);

        pending_apply(pending);
        pending_free(pending);
    }
}

static void pending_add(struct sim_inode *inode, enum sim_pending_kind kind, uint64_t off,
                        size_t size)
{
    struct sim_disk *disk = inode->disk;
    uint64_t first = off / SECTOR_SIZE, end = (off + size + SECTOR_SIZE - 1) / SECTOR_SIZE;
    size_t bytes = kind == SIM_PENDING_WRITE ? (size_t)(end - first) * SECTOR_SIZE : 0;
    struct sim_pending *pending = must_alloc(sizeof(*pending) + bytes);

    *pending = (struct sim_pending){.inode = inode,
                                    .seq = ++inode->seq,
                                    .sector = first,
                                    .sector_count = (uint32_t)(bytes / SECTOR_SIZE),
                                    .size_after = inode->cache.size,
                                    .kind = (uint8_t)kind};
    if (bytes > 0)
        sim_image_read(&inode->cache, pending->data, bytes, first * SECTOR_SIZE);
    list_push_back(&inode->pending, &pending->inode_);
    list_push_back(&disk->pending, &pending->disk_);
    disk->pending_bytes += bytes;
    disk_write_back(disk);
}

void sim_inode_flush(struct sim_inode *inode, uint64_t seq, bool is_lost)
{
    struct list_node *node;

    while ((node = list_first(&inode->pending)) != NULL) {
        struct sim_pending *pending = CONTAINER_OF(node, struct sim_pending, inode_);

        if (pending->seq > seq)
            return;
        if (!is_lost)
            pending_apply(pending);
        pending_free(pending);
    }
}

void sim_inode_flush_last(struct sim_inode *inode, bool is_lost)
{
    struct list_node *node = list_last(&inode->pending);
    struct sim_pending *last, *pending;
    uint64_t end;

    if (node == NULL)
        return;
    last = CONTAINER_OF(node, struct sim_pending, inode_);
    end = last->sector + last->sector_count;
    LIST_FOR_EACH(&inode->pending, at) { /* the older ones must not come out on top of it */
        pending = CONTAINER_OF(at, struct sim_pending, inode_);
        if (pending == last || pending->kind != SIM_PENDING_WRITE || pending->sector >= end ||
            pending->sector + pending->sector_count <= last->sector)
            continue;
        if (!is_lost)
            pending_apply(pending);
        pending_free(pending);
    }
    if (!is_lost)
        pending_apply(last);
    pending_free(last);
}

/* ---- power cut ---------------------------------------------------------------------------- */

static enum sim_disk_outcome draw_outcome(struct sim_disk *disk)
{
    const struct sim_options *o = &disk->sim->options;
    uint64_t sum = (uint64_t)o->disk.crash_old + o->disk.crash_new + o->disk.crash_zero +
                   o->disk.crash_garbage;
    uint64_t pick;

    if (disk->crash_picks) {
        uint64_t at = disk->crash_at++;

        return at == disk->crash_lost[0] || at == disk->crash_lost[1] ? SIM_DISK_OLD : SIM_DISK_NEW;
    }
    if (disk->outcome != SIM_DISK_DRAWN)
        return disk->outcome;
    pick = sim_random_below(disk->sim, SIM_RANDOM_CRASH, sum);
    if (pick < o->disk.crash_old || sum == 0)
        return SIM_DISK_OLD;
    pick -= o->disk.crash_old;
    if (pick < o->disk.crash_new)
        return SIM_DISK_NEW;
    return pick - o->disk.crash_new < o->disk.crash_zero ? SIM_DISK_ZERO : SIM_DISK_GARBAGE;
}

static void sector_crash(struct sim_pending *pending, uint32_t index)
{
    struct sim_inode *inode = pending->inode;
    uint64_t off = (pending->sector + index) * SECTOR_SIZE;
    uint64_t words[SECTOR_SIZE / 8] = {0};

    switch (draw_outcome(inode->disk)) {
    case SIM_DISK_DRAWN:
    case SIM_DISK_OLD:
        return;
    case SIM_DISK_NEW:
        memcpy(words, pending->data + (size_t)index * SECTOR_SIZE, SECTOR_SIZE);
        break;
    case SIM_DISK_ZERO:
        break;
    case SIM_DISK_GARBAGE:
        for (size_t i = 0; i < ARRAY_COUNT(words); i++)
            words[i] = sim_random(inode->disk->sim, SIM_RANDOM_CRASH);
        break;
    }
    sim_image_write(&inode->durable, words, SECTOR_SIZE, off);
}

/* The file system's journal keeps sizes in order: those of a prefix survive. */
static uint64_t draw_size_seq(struct sim_inode *inode)
{
    struct list_node *node = list_first(&inode->pending);
    uint64_t first = CONTAINER_OF(node, struct sim_pending, inode_)->seq;

    if (inode->disk->outcome == SIM_DISK_OLD)
        return 0;
    if (inode->disk->outcome != SIM_DISK_DRAWN)
        return inode->seq;
    return first - 1 + sim_random_below(inode->disk->sim, SIM_RANDOM_CRASH, inode->seq - first + 2);
}

void sim_inode_crash(struct sim_inode *inode)
{
    uint64_t size = inode->durable.size, size_seq;

    if (!list_is_empty(&inode->pending)) {
        size_seq = draw_size_seq(inode);
        LIST_FOR_EACH(&inode->pending, node) {
            struct sim_pending *pending = CONTAINER_OF(node, struct sim_pending, inode_);

            for (uint32_t i = 0; i < pending->sector_count; i++)
                sector_crash(pending, i);
            if (pending->seq > size_seq)
                continue;
            size = pending->size_after;
            if (pending->kind == SIM_PENDING_SIZE)
                sim_image_resize(&inode->durable, size);
        }
        pending_drop_all(inode);
    }
    sim_image_resize(&inode->durable, size);
    sim_image_copy(&inode->cache, &inode->durable);
    inode->reserved_end = MIN(inode->reserved_end, size);
    sim_inode_charge(inode);
}

/* ---- operations --------------------------------------------------------------------------- */

ssize_t sim_inode_read(struct sim_inode *inode, void *data, size_t size, uint64_t off)
{
    const struct sim_image *image = &inode->cache;
    int64_t shift = inode->read_shift;

    if (inode->stale_reads > 0) {
        inode->stale_reads--;
        image = &inode->stale;
    }
    inode->read_shift = 0;
    if (shift != 0)
        off = shift < 0 && (uint64_t)-shift > off ? 0 : off + (uint64_t)shift;
    else if (off >= inode->cache.size || size > inode->cache.size - off)
        return ERR_EOF;
    sim_image_read(image, data, size, off);
    return (ssize_t)size;
}

/* How many bytes from `off` on fit, when pages that are new must be paid for; *new_bytes: those. */
static size_t write_room(const struct sim_inode *inode, size_t size, uint64_t off,
                         uint64_t *new_bytes)
{
    const struct sim_disk *disk = inode->disk;
    uint64_t left = sim_disk_left(disk);
    uint64_t reserved = (inode->reserved_end + PAGE_SIZE_ - 1) / PAGE_SIZE_;
    uint64_t at = off, end = off + size;

    *new_bytes = 0;
    while (at < end) {
        uint64_t page = at / PAGE_SIZE_;
        bool is_new = page >= reserved &&
                      (page >= inode->cache.page_end || inode->cache.pages[page] == NULL);

        if (is_new && left < *new_bytes + PAGE_SIZE_)
            break;
        *new_bytes += is_new ? PAGE_SIZE_ : 0;
        at = (page + 1) * PAGE_SIZE_;
    }
    return (size_t)(MIN(at, end) - off);
}

ssize_t sim_inode_write(struct sim_inode *inode, const void *data, size_t size, uint64_t off,
                        size_t limit)
{
    int64_t shift = inode->write_shift;
    uint64_t new_bytes;
    size_t len;

    inode->write_shift = 0;
    if (shift != 0)
        off = shift < 0 && (uint64_t)-shift > off ? 0 : off + (uint64_t)shift;
    len = write_room(inode, MIN(size, limit), off, &new_bytes);
    if (len > 0) {
        sim_image_write(&inode->cache, data, len, off);
        inode->cache.size = MAX(inode->cache.size, off + len);
        pending_add(inode, SIM_PENDING_WRITE, off, len);
        inode->charged += new_bytes;
        inode->disk->used += new_bytes;
    }
    if (len == size)
        return (ssize_t)size;
    return len == limit ? -EIO : -ENOSPC;
}

ssize_t sim_inode_truncate(struct sim_inode *inode, uint64_t size)
{
    sim_image_resize(&inode->cache, size);
    inode->reserved_end = MIN(inode->reserved_end, size);
    pending_add(inode, SIM_PENDING_SIZE, 0, 0);
    sim_inode_charge(inode);
    return 0;
}

ssize_t sim_inode_allocate(struct sim_inode *inode, uint64_t off, uint64_t size)
{
    struct sim_disk *disk = inode->disk;
    uint64_t end = off + size, space;

    if (size == 0 || end < off)
        return -EINVAL;
    /* From the start, also when `off` is not: simple, and the store allocates whole segments. */
    space = image_space(&inode->cache, MAX(end, inode->reserved_end));
    if (space > inode->charged && disk->used + (space - inode->charged) > disk->capacity)
        return -ENOSPC;
    inode->reserved_end = MAX(inode->reserved_end, end);
    if (end > inode->cache.size) {
        inode->cache.size = end;
        pending_add(inode, SIM_PENDING_SIZE, 0, 0);
    }
    sim_inode_charge(inode);
    return 0;
}
