/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/shard.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_PIECE (4u << 20)

void report_damage(struct report *report, const char *path, uint64_t off, const char *format, ...)
{
    char text[512];
    va_list args;

    if (++report->damages > report->lines_max && report->lines_max != 0) {
        if (report->damages == report->lines_max + 1)
            fputs("damage: ... and more, counted below\n", report->out);
        return;
    }
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fprintf(report->out, "damage: file=%s offset=%llu what=\"%s\"\n", path, (unsigned long long)off, text);
}

void shard_path(const struct shard *shard, const char *name, char out[SHARD_PATH_MAX])
{
    (void)snprintf(out, SHARD_PATH_MAX, "%s/%s", shard->dir, name);
}

uint64_t shard_hash_seed(const struct shard *shard)
{
    uint64_t seed;

    memcpy(&seed, shard->file.seed, sizeof(seed));
    return seed;
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* All of it, or an error: ERR_EOF, -errno. */
static int read_at(int fd, char *data, size_t size, uint64_t off)
{
    while (size > 0) {
        ssize_t got = pread(fd, data, size, (off_t)off);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 ? ERR_EOF : -errno;
        data += got;
        size -= (size_t)got;
        off += (uint64_t)got;
    }
    return 0;
}

/* A page at a time, where a large piece could not be read. */
static void read_pages(struct shard *shard, const struct shard_segment *segment, int fd, size_t size, uint64_t off)
{
    char path[SHARD_PATH_MAX];

    shard_path(shard, segment->name, path);
    for (size_t at = 0; at < size; at += PAGE_SIZE_) {
        int err = read_at(fd, shard->data + off + at, PAGE_SIZE_, off + at);

        if (err == 0)
            continue;
        memset(shard->data + off + at, 0, PAGE_SIZE_);
        report_damage(shard->report, path, off + at, "cannot be read: %s", err_text(err));
    }
}

int shard_load(struct shard *shard, const struct shard_segment *segment)
{
    int fd = openat(shard->dir_fd, segment->name, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (segment->size > shard->data_cap) {
        mem_free(shard->data);
        shard->data = mem_alloc_aligned((size_t)segment->size, PAGE_SIZE_);
        shard->data_cap = shard->data != NULL ? (size_t)segment->size : 0;
    }
    if (shard->data == NULL) {
        close(fd);
        return ERR_FULL;
    }
    for (uint64_t off = 0; off < segment->size; off += READ_PIECE) {
        size_t size = (size_t)MIN((uint64_t)READ_PIECE, segment->size - off);

        if (read_at(fd, shard->data + off, size, off) != 0)
            read_pages(shard, segment, fd, size, off);
    }
    MAYBE(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0); /* a running node's cache is not ours to fill */
    close(fd);
    return 0;
}

bool shard_is_still(const struct shard *shard, const struct shard_segment *segment)
{
    char page[PAGE_SIZE_];
    struct segment_header header;
    int fd = openat(shard->dir_fd, segment->name, O_RDONLY | O_CLOEXEC), err;

    if (fd < 0)
        return false;
    err = read_at(fd, page, sizeof(page), 0);
    close(fd);
    return err == 0 && segment_header_decode(page, &header) && header.kind != SEGMENT_HEADER_FREE &&
           header.sequence == segment->header.sequence;
}

/* ---- one segment's first and last pages ------------------------------------------------------- */

static bool page_belongs(const struct shard *shard, const struct shard_segment *segment, uint64_t off,
                         const struct page *page)
{
    return page->sequence == segment->sequence && (uint64_t)page->block * PAGE_SIZE_ == off &&
           page->kind == (segment->is_hot ? PAGE_HOT : PAGE_COLD) && page->shard == shard->file.shard &&
           memcmp(page->uuid, shard->file.uuid, sizeof(page->uuid)) == 0;
}

static void classify_page(struct shard *shard, struct shard_segment *segment, const char *pages)
{
    struct page page;

    if (!page_decode(pages + PAGE_SIZE_, &page) || memcmp(page.uuid, shard->file.uuid, 16) != 0 || page.block != 1)
        return;
    if (!segment->has_header && !segment->is_free) { /* whose it is, its page writes say */
        segment->sequence = page.sequence;
        segment->is_hot = page.kind == PAGE_HOT;
    }
    segment->has_page = page_belongs(shard, segment, PAGE_SIZE_, &page);
    if (segment->has_page && segment->is_hot && segment->is_blob)
        MAYBE(frame_header_decode(pages + PAGE_SIZE_ + PAGE_HEADER_SIZE, &segment->frame));
}

static bool is_blank(const char *data, size_t size)
{
    return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

/* A footer is its page's first sector, which was zeroes before: it is there as a whole or not at all. */
static bool is_foot_bad(const char *page)
{
    struct segment_footer footer;

    return !segment_footer_decode(page, &footer) && !is_blank(page, 512);
}

static void given_know(struct shard *shard, uint32_t number, const unsigned char uuid[16], uint64_t lsn)
{
    if (number == shard->file.shard && memcmp(uuid, shard->file.uuid, 16) == 0)
        shard->given_lsn = MAX(shard->given_lsn, lsn);
}

/* A footer counts whatever life of its file it is of: the LSN only rises. */
static void given_see(struct shard *shard, const struct shard_segment *segment, const char *foot)
{
    struct segment_footer footer;

    if (segment->has_header)
        given_know(shard, segment->header.shard, segment->header.uuid, segment->header.given_lsn);
    if (segment_footer_decode(foot, &footer))
        given_know(shard, footer.shard, footer.uuid, footer.given_lsn);
}

static void classify(struct shard *shard, struct shard_segment *segment, const char *pages)
{
    struct segment_header *header = &segment->header;
    char path[SHARD_PATH_MAX];

    shard_path(shard, segment->name, path);
    segment->has_header = segment_header_decode(pages, header);
    if (segment->has_header && (memcmp(header->uuid, shard->file.uuid, 16) != 0 || header->shard != shard->file.shard)) {
        report_damage(shard->report, path, 0, "a segment of another directory");
        segment->has_header = false;
    }
    if (segment->has_header) {
        segment->sequence = header->sequence;
        segment->is_free = header->kind == SEGMENT_HEADER_FREE;
        segment->is_blob = header->kind == SEGMENT_BLOB;
        segment->is_hot = header->kind == SEGMENT_HOT || (header->flags & SEGMENT_IS_HOT) != 0;
        if (header->size != segment->size)
            report_damage(shard->report, path, segment->size, "the file is cut: it had %llu bytes",
                          (unsigned long long)header->size);
    }
    given_see(shard, segment, pages + 2 * PAGE_SIZE_);
    classify_page(shard, segment, pages);
    if (!segment->has_header && !segment->has_page) {
        segment->is_free = true; /* made, and never used */
        return;
    }
    segment->is_foot_bad = is_foot_bad(pages + 2 * PAGE_SIZE_);
    segment->is_footed = segment_footer_decode(pages + 2 * PAGE_SIZE_, &segment->footer) &&
                         segment->footer.sequence == segment->sequence &&
                         memcmp(segment->footer.uuid, shard->file.uuid, 16) == 0 &&
                         segment->footer.used_bytes <= segment->size - PAGE_SIZE_;
}

static int segment_open(struct shard *shard, const char *name)
{
    struct shard_segment *segment = &shard->segments[shard->count];
    char pages[3 * PAGE_SIZE_] = {0}, path[SHARD_PATH_MAX];
    struct stat status;
    int fd = openat(shard->dir_fd, name, O_RDONLY | O_CLOEXEC), err = 0;

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno; /* given back meanwhile */
    *segment = (struct shard_segment){0};
    (void)snprintf(segment->name, sizeof(segment->name), "%s", name);
    if (fstat(fd, &status) != 0)
        err = -errno;
    segment->size = (uint64_t)status.st_size;
    shard_path(shard, name, path);
    if (err == 0 && segment->size >= 3 * PAGE_SIZE_ && segment->size % PAGE_SIZE_ == 0) {
        err = read_at(fd, pages, 2 * PAGE_SIZE_, 0);
        if (err == 0)
            err = read_at(fd, pages + 2 * PAGE_SIZE_, PAGE_SIZE_, segment->size - PAGE_SIZE_);
        if (err != 0)
            report_damage(shard->report, path, 0, "cannot be read: %s", err_text(err));
        classify(shard, segment, pages);
        shard->bytes += segment->is_free ? 0 : segment->size;
        shard->count++;
        err = 0;
    } else if (err == 0 && segment->size > 0) { /* without anything in it a start removes it; this one it refuses */
        report_damage(shard->report, path, segment->size, "the file is cut");
    }
    close(fd);
    return err;
}

static bool is_segment_name(const char *name)
{
    size_t digits = strspn(name, "0123456789");

    return digits >= 6 && digits <= 10 && strcmp(name + digits, ".seg") == 0;
}

static int by_sequence(const void *a, const void *b)
{
    const struct shard_segment *x = a, *y = b;

    if (x->is_free != y->is_free)
        return x->is_free ? -1 : 1;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

static int segments_open(struct shard *shard)
{
    DIR *dir;
    struct dirent *entry;
    uint32_t cap = 0;
    int fd = openat(shard->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

    dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL)
        return -errno;
    while (err == 0 && (entry = readdir(dir)) != NULL) {
        if (!is_segment_name(entry->d_name))
            continue;
        if (shard->count == cap) {
            cap = MAX(64u, 2 * cap);
            shard->segments = must_realloc(shard->segments, cap * sizeof(*shard->segments));
        }
        err = segment_open(shard, entry->d_name);
    }
    closedir(dir);
    if (shard->count > 0)
        qsort(shard->segments, shard->count, sizeof(*shard->segments), by_sequence);
    return err;
}

/* ---- the directory ---------------------------------------------------------------------------- */

/* A folder that was made for a shard has nothing in it until its first start. */
static bool has_begun(const struct shard *shard)
{
    static const char *const names[] = {"lock", "MANIFEST", "000000.seg"};

    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (faccessat(shard->dir_fd, names[i], F_OK, 0) == 0)
            return true;
    return false;
}

static int shard_file_read(struct shard *shard)
{
    char page[PAGE_SIZE_], path[SHARD_PATH_MAX];
    int fd = openat(shard->dir_fd, "shard", O_RDONLY | O_CLOEXEC), err;

    shard_path(shard, "shard", path);
    if (fd < 0 && errno == ENOENT && has_begun(shard)) {
        report_damage(shard->report, path, 0, "it is missing");
        return ERR_CORRUPT;
    }
    if (fd < 0)
        return -errno;
    err = read_at(fd, page, sizeof(page), 0);
    close(fd);
    if (err == 0 && shard_file_decode(page, &shard->file))
        return 0;
    report_damage(shard->report, path, 0, "it does not verify");
    return ERR_CORRUPT;
}

/* Whether a node has it, and what it tells that no segment may. */
static void lock_read(struct shard *shard)
{
    char page[PAGE_SIZE_], path[SHARD_PATH_MAX], state[LOCK_STATE_SIZE];
    struct given_page given;
    int fd = openat(shard->dir_fd, "lock", O_RDONLY | O_CLOEXEC), err;

    if (fd < 0)
        return;
    shard->is_running = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    shard->was_open = read_at(fd, state, sizeof(state), 0) == 0 && memcmp(state, LOCK_STATE_OPEN, sizeof(state)) == 0;
    err = read_at(fd, page, sizeof(page), GIVEN_AT);
    close(fd);
    if (err == ERR_EOF || (err == 0 && is_blank(page, sizeof(page))))
        return;
    shard_path(shard, "lock", path);
    if (err != 0)
        report_damage(shard->report, path, GIVEN_AT, "cannot be read: %s", err_text(err));
    else if (given_page_decode(page, &given))
        given_know(shard, given.shard, given.uuid, given.given_lsn);
    else if (!shard->is_running) /* else it may be half written */
        report_damage(shard->report, path, GIVEN_AT, "what tells how far back a restore can go does not verify");
}

/* What most files that say anything say. */
static int identity_guess(struct shard *shard)
{
    struct vote {
        unsigned char uuid[16];
        uint32_t shard, count;
    } votes[16] = {{{0}, 0, 0}};
    DIR *dir = fdopendir(openat(shard->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct dirent *entry;
    uint32_t best = 0;

    if (dir == NULL)
        return -errno;
    while ((entry = readdir(dir)) != NULL) {
        char page[PAGE_SIZE_];
        struct segment_header header;
        int fd = is_segment_name(entry->d_name) ? openat(shard->dir_fd, entry->d_name, O_RDONLY | O_CLOEXEC) : -1;
        bool is_read = fd >= 0 && read_at(fd, page, sizeof(page), 0) == 0 && segment_header_decode(page, &header);

        if (fd >= 0)
            close(fd);
        for (uint32_t i = 0; is_read && i < ARRAY_COUNT(votes); i++) {
            if (votes[i].count != 0 && (votes[i].shard != header.shard || memcmp(votes[i].uuid, header.uuid, 16) != 0))
                continue;
            memcpy(votes[i].uuid, header.uuid, 16);
            votes[i].shard = header.shard;
            best = ++votes[i].count > votes[best].count ? i : best;
            break;
        }
    }
    closedir(dir);
    if (votes[best].count == 0)
        return ERR_NOT_FOUND;
    shard->file = (struct shard_file){.shard = votes[best].shard};
    memcpy(shard->file.uuid, votes[best].uuid, 16);
    return 0;
}

static int open_any(const char *dir, struct report *report, bool may_be_damaged, struct shard *out)
{
    int err;

    *out = (struct shard){.report = report};
    if ((size_t)snprintf(out->dir, sizeof(out->dir), "%s", dir) >= sizeof(out->dir))
        return -ENAMETOOLONG;
    out->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (out->dir_fd < 0)
        return -errno;
    err = shard_file_read(out);
    if (may_be_damaged && err != 0) {
        if (err != ERR_CORRUPT)
            report_damage(report, dir, 0, "the file \"shard\" cannot be read: %s", err_text(err));
        err = identity_guess(out);
    }
    if (err == 0) {
        lock_read(out);
        err = segments_open(out);
    }
    if (err != 0)
        shard_close(out);
    return err;
}

int shard_open(const char *dir, struct report *report, struct shard *out)
{
    return open_any(dir, report, false, out);
}

int shard_open_damaged(const char *dir, struct report *report, struct shard *out)
{
    return open_any(dir, report, true, out);
}

void shard_close(struct shard *shard)
{
    if (shard->dir_fd >= 0)
        close(shard->dir_fd);
    shard->dir_fd = -1;
    mem_free(shard->segments);
    mem_free(shard->data);
    shard->segments = NULL;
    shard->data = NULL;
}

static bool has_file(const char *dir, const char *name, char path[SHARD_PATH_MAX])
{
    struct stat status;

    return (size_t)snprintf(path, SHARD_PATH_MAX, "%s/%s", dir, name) < SHARD_PATH_MAX && stat(path, &status) == 0;
}

/* Highest i of a shard-i in `dir`, plus 1. */
static uint32_t shards_count(DIR *dir)
{
    struct dirent *entry;
    uint32_t count = 0;

    while ((entry = readdir(dir)) != NULL) {
        uint64_t number;

        if (strncmp(entry->d_name, "shard-", 6) == 0 &&
            bytes_to_u64(bytes_of_string(entry->d_name + 6), 65535, &number))
            count = MAX(count, (uint32_t)number + 1);
    }
    return count;
}

int shards_each(const char *dir, FILE *out, int (*each)(void *arg, const char *dir), void *arg)
{
    char path[SHARD_PATH_MAX], name[32];
    bool is_missing = false;
    uint32_t count;
    DIR *list;
    int err = 0;

    if (has_file(dir, "shard", path) || has_file(dir, "000000.seg", path))
        return each(arg, dir);
    list = opendir(dir);
    if (list == NULL) {
        err = -errno;
        fprintf(stderr, "weirctl: %s: %s\n", dir, err_text(err));
        return err;
    }
    count = shards_count(list);
    closedir(list);
    if (count == 0) {
        fprintf(stderr, "weirctl: %s: there is no shard in it, and it is none\n", dir);
        return ERR_NOT_FOUND;
    }
    for (uint32_t i = 0; i < count && err == 0; i++) {
        (void)snprintf(name, sizeof(name), "shard-%u", i);
        if (has_file(dir, name, path)) {
            err = each(arg, path);
            continue;
        }
        fprintf(out, "damage: file=%s/%s offset=0 what=\"a shard is missing\"\n", dir, name);
        is_missing = true;
    }
    return err != 0 ? err : is_missing ? ERR_CORRUPT : 0;
}

/* ---- the hot log ------------------------------------------------------------------------------ */

static bool is_hot_segment(const struct shard_segment *segment)
{
    return !segment->is_free && segment->has_header && segment->is_hot && !segment->is_blob;
}

/* Something was written to the log since it was opened: a page write, or a blob beside it. */
static bool is_begun(const struct shard *shard, const struct shard_segment *segment)
{
    if (segment->has_page || (segment->is_footed && segment->footer.used_bytes > PAGE_SIZE_))
        return true;
    for (uint32_t i = 0; i < shard->count; i++) {
        const struct shard_segment *blob = &shard->segments[i];

        if (!blob->is_free && blob->is_hot && blob->is_blob && blob->has_page &&
            blob->header.prev_sequence == segment->sequence)
            return true;
    }
    return false;
}

static struct shard_segment *hot_find(struct shard *shard, uint64_t sequence)
{
    for (uint32_t i = 0; i < shard->count; i++)
        if (is_hot_segment(&shard->segments[i]) && shard->segments[i].sequence == sequence)
            return &shard->segments[i];
    return NULL;
}

void shard_chain_find(struct shard *shard)
{
    struct shard_segment *segment = NULL, *before;
    char path[SHARD_PATH_MAX];

    for (uint32_t i = shard->count; i > 0 && segment == NULL; i--)
        if (is_hot_segment(&shard->segments[i - 1]) && is_begun(shard, &shard->segments[i - 1]))
            segment = &shard->segments[i - 1];
    while (segment != NULL) {
        uint64_t sequence = segment->header.prev_sequence;

        segment->is_chained = true;
        before = sequence == 0 ? NULL : hot_find(shard, sequence);
        if (before == NULL && sequence != 0 && sequence >= shard->hot_from && segment->sequence > shard->hot_from) {
            shard_path(shard, segment->name, path);
            report_damage(shard->report, path, 0, "the segment before it is missing: sequence %llu",
                          (unsigned long long)sequence);
        }
        if (before != NULL && before->sequence >= segment->sequence)
            before = NULL;
        if (before != NULL)
            before->next = segment;
        segment = before;
    }
}

uint64_t shard_segment_end(const struct shard *shard, const struct shard_segment *segment)
{
    uint64_t end = segment->size - PAGE_SIZE_;

    MAYBE(shard != NULL);
    if (segment->is_footed)
        end = segment->footer.used_bytes;
    if (segment->next != NULL && segment->next->header.prev_end >= PAGE_SIZE_ && segment->next->header.prev_end < end)
        end = segment->next->header.prev_end;
    return end;
}

/* ---- page writes ------------------------------------------------------------------------------ */

static const char *frame_check(struct bytes data, struct frame *frame, bool is_hot)
{
    struct bytes rest;
    uint32_t count = 0;

    if (!frame_decode(data, frame))
        return "a frame does not verify";
    if (((frame->flags & FRAME_COLD) != 0) == is_hot)
        return "a frame of the other kind";
    rest = frame_records(data, frame);
    for (; rest.len > 0; count++) {
        struct record record;
        size_t size = record_decode(rest, &record);

        if (size == 0 || record.lsn < frame->first_lsn || record.lsn > frame->last_lsn)
            return "a record in a frame that verifies does not";
        rest = bytes_skip(rest, size);
    }
    return count == frame->record_count ? NULL : "a frame with another count of records";
}

const char *shard_page_at(const struct shard *shard, const struct shard_segment *segment, uint64_t off,
                          struct shard_page *out, bool *has_header)
{
    const char *at = shard->data + off, *what;
    struct bytes rest;
    struct frame frame;
    uint32_t count = 0;

    *has_header = false;
    *out = (struct shard_page){.segment = segment, .off = off};
    if (!page_decode(at, &out->page))
        return "a page write does not verify";
    if (!page_belongs(shard, segment, off, &out->page))
        return "a page write of another place";
    if (page_size(&out->page) > segment->size - PAGE_SIZE_ - off)
        return "a page write does not fit the file";
    *has_header = true;
    out->data = bytes_of(at, out->page.used);
    rest = bytes_skip(out->data, PAGE_HEADER_SIZE);
    for (; rest.len > 0; count++) {
        what = frame_check(rest, &frame, segment->is_hot);
        if (what != NULL)
            return what;
        rest = bytes_skip(rest, frame.size);
    }
    return count == out->page.frame_count ? NULL : "a page write with another count of frames";
}

uint64_t shard_page_find(const struct shard *shard, const struct shard_segment *segment, uint64_t off, uint64_t end)
{
    struct page page;

    for (; off < end; off += PAGE_SIZE_)
        if (page_decode(shard->data + off, &page) && page_belongs(shard, segment, off, &page) &&
            page_size(&page) <= segment->size - PAGE_SIZE_ - off)
            return off;
    return end;
}
