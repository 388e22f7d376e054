/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weirctl salvage: a node's directory out of what can be read of a damaged one.
 *
 *   A1  The damaged directory is only read: whatever comes out, it can be tried again, by other means.
 *   A2  A key whose newest record verifies is there with that value, wherever else damage is.
 *   A3  What is lost is told: places and bytes; keys that the checkpoint knows and no record has, by name; ranges of LSNs
 *       that the log lacks, so that what a key did then is not known.
 *   A4  What is missing by what else is known is told, as a start would refuse it: a newest segment that is not there, changes
 *       that only the log ring of a killed node has.
 *   A5  Never a value that was not written: every record's checksum is asked, twice.
 */
#include "ctl/salvage.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "ctl/ctl.h"
#include "ctl/ring.h"
#include "ctl/source.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES_MAX   50u
#define LINES_MAX   100u
#define NAME_SHOWN  64u

struct command {
    struct tree tree;
    struct progress progress;
    uint32_t shard_count;
    const char *dir;      /* borrows */
    bool is_single;       /* it is a shard's */
    bool has_damage;
};

/* ---- what was lost ---------------------------------------------------------------------------- */

struct names {
    struct salvage *salvage;
    uint32_t shown;
};

static void name_print(FILE *out, struct bytes name)
{
    for (size_t i = 0; i < MIN(name.len, (size_t)NAME_SHOWN); i++) {
        unsigned char c = (unsigned char)name.data[i];

        if (c < 0x20 || c >= 0x7f || c == '\\' || c == '"')
            fprintf(out, "\\x%02x", c);
        else
            fputc(c, out);
    }
    if (name.len > NAME_SHOWN)
        fprintf(out, "... (%zu bytes)", name.len);
}

static int name_each(void *arg, uint32_t page, const struct checkpoint_key *key, uint64_t hash)
{
    struct names *names = arg;
    const struct salvage_known *known = salvage_known_find(names->salvage, hash);

    MAYBE(page);
    if (known == NULL || !known->is_lost || names->shown > NAMES_MAX)
        return 0;
    if (names->shown++ == NAMES_MAX) {
        fputs("lost: ... and more, counted below\n", names->salvage->out);
        return 0;
    }
    fprintf(names->salvage->out, "lost: db=%u key=\"", key->db);
    name_print(names->salvage->out, key->key);
    fprintf(names->salvage->out, "\" lsn=%llu\n", (unsigned long long)key->lsn);
    return 0;
}

static void names_print(struct salvage *salvage)
{
    struct names names = {.salvage = salvage};
    struct report silent = *salvage->shard->report, *told = salvage->shard->report;

    if (!salvage->has_checkpoint)
        return;
    silent.lines_max = silent.damages = 1; /* pages that are damaged were told */
    salvage->shard->report = &silent;
    MAYBE(shard_checkpoint_each(salvage->shard, &salvage->checkpoint, name_each, &names) != 0);
    salvage->shard->report = told;
}

/* The LSN from which on the checkpoint needs the log; 0: all of it counts, as there is none that is whole. What is missing
 * below was given back by the cleaner. */
static uint64_t needed_from(const struct salvage *salvage)
{
    const struct shard *shard = salvage->shard;

    if (!salvage->has_checkpoint)
        return 0;
    for (uint32_t page = 0; page < salvage->checkpoint.meta.page_count; page++)
        if (salvage->checkpoint.pages_bad[page])
            return 0;
    for (uint32_t i = 0; i < shard->count; i++)
        if (!shard->segments[i].is_free && shard->segments[i].has_header &&
            shard->segments[i].sequence == shard->hot_from)
            return shard->segments[i].header.first_lsn;
    return 0;
}

static void ranges_print(const struct salvage *salvage)
{
    uint64_t from = needed_from(salvage);
    bool has_any = false;

    for (uint32_t i = 0; i < MIN(salvage->range_count, SALVAGE_RANGES_MAX); i++) {
        const struct salvage_range *range = &salvage->ranges[i];

        if (range->last != 0 && range->last < from)
            continue;
        has_any = true;
        if (range->last != 0)
            fprintf(salvage->out, "lost: lsn %llu to %llu, but for single records among them\n",
                    (unsigned long long)range->first, (unsigned long long)range->last);
        else
            fprintf(salvage->out, "lost: what came after lsn %llu\n", (unsigned long long)range->first - 1);
    }
    if (has_any)
        fputs("  keys that were changed then have the value from before, or lack that change\n", salvage->out);
}

/* What the log of before had of them, nobody can tell. */
static bool may_come_back(const struct salvage *salvage)
{
    return !salvage->has_checkpoint && !salvage->is_log_whole && salvage->records > 0;
}

static void summary_print(const struct salvage *salvage, uint64_t damages)
{
    char bytes[SIZE_TEXT_MAX];

    fprintf(salvage->out, "%s: shard %u\n", salvage->shard->dir, salvage->shard->file.shard);
    fprintf(salvage->out, "  records     %llu could be read\n", (unsigned long long)salvage->records);
    fprintf(salvage->out, "  keys        %llu kept\n", (unsigned long long)salvage->keys);
    if (salvage->keys_lost > 0)
        fprintf(salvage->out, "  lost        %llu keys: their newest value cannot be read\n",
                (unsigned long long)salvage->keys_lost);
    if (salvage->keys_cut > 0)
        fprintf(salvage->out, "  cut         %llu keys lack changes that the checkpoint knows of\n",
                (unsigned long long)salvage->keys_cut);
    if (salvage->tails > 0)
        fprintf(salvage->out, "  ends        %llu records lie behind the last write that verifies, and are in use\n",
                (unsigned long long)salvage->tails);
    if (salvage->ring_records > 0)
        fprintf(salvage->out, "  log ring    %llu changes, up to lsn %llu, are only in %s: they are left out, a start on this host "
                "takes them over\n", (unsigned long long)salvage->ring_records, (unsigned long long)salvage->ring_lsn,
                salvage->ring_path);
    if (salvage->is_ring_lost)
        fputs("  log ring    none of this node, which was killed: its newest changes may be missing\n", salvage->out);
    if (!salvage->has_checkpoint)
        fprintf(salvage->out, "  checkpoint  none%s\n", may_come_back(salvage) ? ": deleted keys may have come back" : "");
    fprintf(salvage->out, "  damage      %llu; %s in %llu places could not be used\n", (unsigned long long)damages,
            size_text(salvage->lost_bytes, bytes), (unsigned long long)salvage->lost_places);
}

/* ---- a shard ---------------------------------------------------------------------------------- */

/* It is not read into what comes out: a start there does that, and knows what it continues. */
static void ring_look(struct salvage *salvage)
{
    const struct shard *shard = salvage->shard;
    uint64_t last = MAX(salvage->hot_lsn, salvage->has_checkpoint ? salvage->checkpoint.lsn_max : 0);
    struct ring ring;
    struct ring_rest rest;
    int err = ring_open(shard, &ring);

    if (err != 0 && err != ERR_CORRUPT) /* that was told */
        report_damage(shard->report, ring.path, 0, "the log ring cannot be read: %s", err_text(err));
    if (err == 0 && ring.state == RING_THERE) {
        ring_rest(&ring, last, &rest);
        salvage->ring_records = rest.records;
        salvage->ring_lsn = rest.lsn;
        (void)snprintf(salvage->ring_path, sizeof(salvage->ring_path), "%s", ring.path);
        if (rest.bad_off != 0)
            report_damage(shard->report, ring.path, rest.bad_off, "a frame in the log ring does not verify");
        if (ring.appended > MAX(last, rest.lsn))
            report_damage(shard->report, ring.path, 0, "the log ring promises lsn %llu, and it and the files end at %llu",
                          (unsigned long long)ring.appended, (unsigned long long)MAX(last, rest.lsn));
    }
    if (err == 0 && ring.state == RING_DAMAGED)
        report_damage(shard->report, ring.path, 0, "the log ring's header or size is damaged");
    salvage->is_ring_lost = shard->was_open && ring.state != RING_THERE;
    ring_close(&ring);
}

static int shard_salvage(struct command *command, struct shard *shard, int to)
{
    struct salvage salvage = {.shard = shard, .progress = &command->progress, .out = stdout};
    int err;

    for (uint8_t db = 0; db < STORE_DBS; db++)
        salvage.places[db] = db;
    err = salvage_read(&salvage);
    if (err != 0) {
        fprintf(stderr, "weirctl: %s: %s\n", shard->dir, err == ERR_FULL ? "not enough memory" : err_text(err));
    } else {
        ring_look(&salvage);
        salvage_choose(&salvage);
        names_print(&salvage);
        ranges_print(&salvage);
        err = salvage_write(&salvage, &command->tree, to, command->shard_count);
    }
    if (err == 0)
        summary_print(&salvage, shard->report->damages);
    command->has_damage |= shard->report->damages + salvage.keys_lost + salvage.keys_cut + salvage.tails + salvage.ring_records > 0 ||
                           may_come_back(&salvage) || salvage.is_ring_lost;
    shard_checkpoint_free(&salvage.checkpoint);
    mem_free(salvage.items);
    mem_free(salvage.known);
    mem_free(salvage.epoch_ends);
    return err;
}

static int salvage_each(void *arg, const char *dir)
{
    struct command *command = arg;
    struct report report = {.out = stdout, .lines_max = LINES_MAX};
    struct shard shard;
    char name[32];
    int err = shard_open_damaged(dir, &report, &shard), to;

    if (err != 0) {
        fprintf(stderr, "weirctl: %s: %s\n", dir, err == ERR_NOT_FOUND ? "nothing in it is of a shard" : err_text(err));
        return err;
    }
    if (shard.is_running) {
        fprintf(stderr, "weirctl: %s: a node has it open\n", dir);
        shard_close(&shard);
        return ERR_EXISTS;
    }
    if (shard.file.shard_count != 0)
        command->shard_count = shard.file.shard_count;
    command->shard_count = MAX(command->shard_count, shard.file.shard + 1);
    (void)snprintf(name, sizeof(name), "shard-%u", shard.file.shard);
    to = tree_dir(&command->tree, name, shard.dir_fd);
    err = to < 0 ? to : shard_salvage(command, &shard, to);
    shard_close(&shard);
    return err;
}

/* ---- the command ------------------------------------------------------------------------------ */

static int count_each(void *arg, const char *dir)
{
    struct command *command = arg;
    const char *dash = strrchr(dir, '-');
    uint64_t number;

    if (strcmp(dir, command->dir) == 0)
        command->is_single = true;
    else if (dash != NULL && bytes_to_u64(bytes_of_string(dash + 1), SHARDS_MAX - 1, &number))
        command->shard_count = MAX(command->shard_count, (uint32_t)number + 1);
    return 0;
}

/* A shard whose folder is not there gets an empty one, or the node would not start. */
static int missing_write(struct command *command)
{
    char name[32];
    int err = 0;

    for (uint32_t i = 0; i < command->shard_count && err == 0 && !command->is_single; i++) {
        int to;

        (void)snprintf(name, sizeof(name), "shard-%u", i);
        if (faccessat(command->tree.fds[0], name, F_OK, 0) == 0)
            continue;
        to = tree_dir(&command->tree, name, command->tree.fds[0]);
        err = to < 0 ? to : salvage_write_empty(&command->tree, to, command->tree.fds[0], i, command->shard_count);
        if (err == 0)
            printf("%s: shard %u was missing: it is empty now\n", command->tree.path, i);
        command->has_damage = true;
    }
    return err;
}

int ctl_salvage(const char *dir, const char *out)
{
    struct command *command = must_zalloc(sizeof(*command));
    FILE *sink = fopen("/dev/null", "we"); /* a missing shard is told once */
    int err;

    command->dir = dir;
    err = shards_each(dir, stdout, count_each, command);
    if (err == 0 || err == ERR_CORRUPT)
        err = tree_outside(out, dir);
    if (err == 0)
        err = tree_begin(&command->tree, out);
    if (err == 0) {
        err = shards_each(dir, sink != NULL ? sink : stdout, salvage_each, command);
        if (err == ERR_CORRUPT && !command->is_single)
            err = 0; /* one is missing */
        if (err == 0)
            err = missing_write(command);
        if (err == 0)
            err = tree_end(&command->tree);
        else
            tree_drop(&command->tree);
    }
    if (err == 0)
        printf("%s: %s\n", out, command->has_damage ? "what could be read is there; compare it before it is used"
                                                    : "all of it is there: no damage was met");
    if (sink != NULL)
        fclose(sink);
    mem_free(command);
    return err == 0 ? CTL_OK : CTL_FAILED;
}
