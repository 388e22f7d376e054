/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weirctl restore: a node's directory out of a backup (or out of a stopped node's directory).
 *
 *     all of it        every file linked, MANIFEST and shard copied
 *     --until          the same, but: the log is cut (ctl/cut.h), its last segment written anew, and MANIFEST has only the
 *                      newest checkpoint
 *
 *   V1  The source is not changed, whatever happens, also not by the node that runs on what was restored: what has a
 *       second name is never written to (backend/store/backup.h, B4).
 *   V2  The directory has no node.id: the node that starts on it makes a new one, so its log ring has a new name. A ring
 *       that the former life left in /dev/shm is not replayed over what was restored.
 *   V3  What told how far back the source goes may not stay (a free segment, what is behind the cut, a backup's file): the
 *       file "lock" tells it here, as it does in a node's directory (backend/store/log_given.c).
 *   V4  All shards are cut at the same time; each for itself, as each has its own log and its own clock's reading.
 */
#include "ctl/ctl.h"
#include "ctl/cut.h"
#include "ctl/range.h"
#include "ctl/source.h"
#include "ctl/tree.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct restore {
    struct source source;
    struct tree tree;
    struct progress progress;
    struct cut_limit limit;
    bool has_limit;
};

/* ---- until ------------------------------------------------------------------------------------ */

/* The digits of ".123", as milliseconds; NULL: they make no sense. */
static const char *fraction_parse(const char *at, uint64_t *ms)
{
    unsigned scale = 100, digits = 0;

    *ms = 0;
    if (*at != '.')
        return at;
    for (at++; *at >= '0' && *at <= '9'; at++, digits++) {
        *ms += (uint64_t)(*at - '0') * scale;
        scale /= 10;
    }
    return digits > 0 ? at : NULL;
}

/* A date that is in no calendar would be another one without a word: February has no 30th. */
static bool calendar_ms(const struct tm *parts, uint64_t *ms)
{
    struct tm same = *parts;
    time_t at = timegm(&same);

    *ms = (uint64_t)at * 1000;
    return parts->tm_year >= 70 && same.tm_mday == parts->tm_mday && same.tm_sec == parts->tm_sec;
}

/* "2026-11-28 15:04:05.678Z" (or with a T), "@1796137445.678", "lsn:1234" */
static bool until_parse(const char *text, struct cut_limit *out)
{
    struct tm parts = {0};
    uint64_t fraction = 0;
    const char *at;
    char *end;

    *out = (struct cut_limit){.is_time = true};
    if (strncmp(text, "lsn:", 4) == 0) {
        out->is_time = false;
        return bytes_to_u64(bytes_of_string(text + 4), STORE_LSN_MAX, &out->value);
    }
    if (text[0] == '@') {
        if (text[1] < '0' || text[1] > '9')
            return false;
        out->value = strtoull(text + 1, &end, 10);
        at = fraction_parse(end, &fraction);
        if (at == NULL || *at != '\0' || out->value >= UINT64_MAX / 1000)
            return false;
        out->value = out->value * 1000 + fraction;
        return true;
    }
    at = strptime(text, "%Y-%m-%d", &parts);
    if (at == NULL || (*at != ' ' && *at != 'T'))
        return false;
    at = strptime(at + 1, "%H:%M:%S", &parts);
    at = at != NULL ? fraction_parse(at, &fraction) : NULL;
    if (at == NULL || strcmp(at, at[0] == 'Z' ? "Z" : "") != 0 || !calendar_ms(&parts, &out->value))
        return false;
    out->value += fraction;
    return true;
}

static bool limit_check(struct restore *restore, const char *until)
{
    char taken[TIME_TEXT_MAX];
    uint64_t last = restore->source.taken_ms;

    restore->has_limit = true;
    if (!restore->limit.is_time && restore->source.count > 1) {
        fprintf(stderr, "weirctl: --until lsn:N is for one shard, each has its own; %s has %u: a time is wanted\n",
                restore->source.dir, restore->source.count);
        return false;
    }
    if (restore->limit.is_time && last == 0)
        last = (uint64_t)time(NULL) * 1000 + 999;
    if (restore->limit.is_time && restore->limit.value > last) {
        fprintf(stderr, "weirctl: --until %s is later than what %s has: its end is %s\n", until, restore->source.dir,
                time_text(last, taken));
        return false;
    }
    return true;
}

/* ---- one shard -------------------------------------------------------------------------------- */

/* What was durable then and comes behind the cut is not missed (K5 of checkpoint.h). */
static int checkpoint_put(struct restore *restore, const struct shard *shard, const struct shard_checkpoint *base,
                          uint64_t lsn, int to)
{
    char slots[2 * CHECKPOINT_SLOT_SIZE] = {0};
    struct checkpoint_slot slot = base->slot;
    int err;

    slot.durable_lsn = MIN(checkpoint_slot_durable(&slot), lsn);
    checkpoint_slot_seal(&slot);
    memcpy(slots + slot.generation % 2 * CHECKPOINT_SLOT_SIZE, &slot, sizeof(slot));
    err = tree_put(&restore->tree, to, "MANIFEST", bytes_of(slots, sizeof(slots)), sizeof(slots), shard->dir_fd);
    return err != 0 ? err : tree_take(&restore->tree, shard->dir_fd, base->name, to);
}

static int checkpoints_take(struct restore *restore, const struct shard *shard,
                            const struct shard_checkpoint *checkpoints, unsigned count, int to)
{
    int err = 0;

    if (faccessat(shard->dir_fd, "MANIFEST", F_OK, 0) != 0)
        return 0;
    err = tree_copy(&restore->tree, shard->dir_fd, "MANIFEST", to);
    for (unsigned i = 0; i < count && err == 0; i++)
        if (i == 0 || strcmp(checkpoints[0].name, checkpoints[1].name) != 0)
            err = tree_take(&restore->tree, shard->dir_fd, checkpoints[i].name, to);
    return err;
}

static int segments_take(struct restore *restore, struct shard *shard, const struct cut *cut, int to)
{
    int err = 0;

    for (uint32_t i = 0; i < shard->count && err == 0; i++) {
        const struct shard_segment *segment = &shard->segments[i];
        enum cut_part part = restore->has_limit ? cut_part_of(cut, segment) : CUT_ALL;

        if (!source_keeps(shard, segment) || part == CUT_NONE)
            continue;
        if (part == CUT_ALL) {
            err = tree_take(&restore->tree, shard->dir_fd, segment->name, to);
            continue;
        }
        err = cut_compose(shard, cut);
        if (err != 0)
            fprintf(stderr, "weirctl: %s/%s: %s\n", shard->dir, segment->name, err_text(err));
        else
            err = tree_put(&restore->tree, to, segment->name, bytes_of(shard->data, (size_t)segment->size), segment->size,
                           shard->dir_fd);
    }
    return err;
}

/* V3 */
static int given_put(struct restore *restore, const struct shard *shard, int to)
{
    struct given_page given = {.shard = shard->file.shard, .given_lsn = shard->given_lsn};
    char pages[GIVEN_AT + PAGE_SIZE_] = {0};

    if (shard->given_lsn == 0)
        return 0;
    memcpy(given.uuid, shard->file.uuid, sizeof(given.uuid));
    given_page_encode(&given, pages + GIVEN_AT);
    return tree_put(&restore->tree, to, "lock", bytes_of(pages, sizeof(pages)), sizeof(pages), shard->dir_fd);
}

/* Q2 */
static void told_outside(const struct restore *restore, struct shard *shard, const struct shard_checkpoint *base)
{
    struct range range;
    char from[TIME_TEXT_MAX];

    if (range_begin(shard, base, &range) != 0 || (restore->limit.is_time && range.from_ms == 0))
        fprintf(stderr, "weirctl: %s: it does not go back that far: an older backup is needed\n", shard->dir);
    else if (restore->limit.is_time)
        fprintf(stderr, "weirctl: %s: it goes back to %s: an older backup is needed\n", shard->dir,
                time_text(range.from_ms, from));
    else
        fprintf(stderr, "weirctl: %s: it goes back to lsn:%llu: an older backup is needed\n", shard->dir,
                (unsigned long long)range.from_lsn);
}

static void told_cut(const struct restore *restore, uint32_t shard, const struct cut *cut)
{
    char wall[TIME_TEXT_MAX], next[TIME_TEXT_MAX];

    if (cut->is_whole)
        printf("%s: shard %u: nothing came later\n", restore->tree.path, shard);
    else
        printf("%s: shard %u: up to lsn %llu%s%s; the first change left out is of %s\n", restore->tree.path, shard,
               (unsigned long long)cut->lsn, cut->wall_ms != 0 ? " of " : "",
               cut->wall_ms != 0 ? time_text(cut->wall_ms, wall) : "", time_text(cut->next_ms, next));
}

static int shard_restore(struct restore *restore, uint32_t i)
{
    struct shard *shard = &restore->source.shards[i];
    struct shard_checkpoint checkpoints[2];
    uint64_t damages = restore->source.report.damages;
    unsigned count = shard_checkpoints(shard, checkpoints);
    const struct shard_checkpoint *base = count > 0 ? &checkpoints[0] : NULL;
    struct cut cut = {.is_whole = true};
    char name[32];
    int to, err = 0;

    if (restore->has_limit && restore->source.report.damages != damages)
        err = ERR_CORRUPT; /* then this one may not be the newest */
    else if (restore->has_limit)
        err = cut_find(shard, base, &restore->limit, &restore->progress, &cut);
    if (err == ERR_INVALID)
        told_outside(restore, shard, base);
    else if (err != 0)
        fprintf(stderr, "weirctl: %s: %s: nothing is restored; weirctl verify says more\n", shard->dir, err_text(err));
    (void)snprintf(name, sizeof(name), "shard-%u", i);
    to = err == 0 ? tree_dir(&restore->tree, name, shard->dir_fd) : err;
    err = to < 0 ? to : tree_copy(&restore->tree, shard->dir_fd, "shard", to);
    if (err == 0 && !cut.is_whole && base != NULL)
        err = checkpoint_put(restore, shard, base, cut.lsn, to);
    else if (err == 0 && cut.is_whole)
        err = checkpoints_take(restore, shard, checkpoints, count, to);
    if (err == 0)
        err = segments_take(restore, shard, &cut, to);
    if (err == 0)
        err = given_put(restore, shard, to);
    if (err == 0 && restore->has_limit)
        told_cut(restore, i, &cut);
    for (unsigned k = 0; k < count; k++)
        shard_checkpoint_free(&checkpoints[k]);
    return err;
}

/* ---- the command ------------------------------------------------------------------------------ */

static int shards_restore(struct restore *restore)
{
    struct progress copying;
    int err = 0;

    progress_start(&copying, "copying", restore->source.bytes);
    for (uint32_t i = 0; i < restore->source.count && err == 0; i++) {
        restore->tree.progress = &copying;
        err = shard_restore(restore, i);
    }
    restore->tree.progress = NULL;
    progress_clear(&copying);
    return err;
}

static void told_done(const struct restore *restore)
{
    char linked[SIZE_TEXT_MAX], copied[SIZE_TEXT_MAX];

    printf("%s: %u shard%s restored: %s linked, %s copied; start it with --workers %u\n", restore->tree.path,
           restore->source.count, restore->source.count == 1 ? "" : "s",
           size_text(restore->tree.linked_bytes, linked), size_text(restore->tree.copied_bytes, copied),
           restore->source.count);
}

int ctl_restore(const char *source, const char *dir, const char *until, bool must_copy)
{
    struct restore *restore = must_zalloc(sizeof(*restore));
    int locks[SHARDS_MAX], err;
    bool is_locked = false;

    if (until != NULL && !until_parse(until, &restore->limit)) {
        fprintf(stderr, "weirctl: --until takes a time (UTC), as in \"2026-11-28 15:04:05.678Z\" or @1796137445.678, or "
                "lsn:N, not \"%s\"\n", until);
        mem_free(restore);
        return CTL_USAGE;
    }
    err = source_open(&restore->source, source);
    if (err == 0)
        err = source_outside(&restore->source, dir);
    if (err == 0) {
        err = source_lock(&restore->source, locks);
        is_locked = err == 0;
    }
    if (err == 0 && until != NULL && !limit_check(restore, until))
        err = ERR_INVALID;
    if (err == 0)
        err = tree_begin(&restore->tree, dir);
    if (err == 0) {
        restore->tree.must_copy = must_copy;
        err = shards_restore(restore);
        if (err == 0)
            err = tree_end(&restore->tree);
        else
            tree_drop(&restore->tree);
    }
    if (err == 0)
        told_done(restore);
    if (is_locked)
        source_unlock(&restore->source, locks);
    source_close(&restore->source);
    mem_free(restore);
    return err == 0 ? CTL_OK : CTL_FAILED;
}
