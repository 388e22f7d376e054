/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slow log: the last slowlog-max-len commands that took slowlog-log-slower-than microseconds or more, newest
 * first. Arguments are cut as Redis cuts them, so an entry has a bounded size.
 */
#include "backend/cmd/slowlog.h"

#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/help.h"
#include "backend/cmd/secret.h"
#include "backend/cmd/settings.h"
#include "common/base/mem.h"

#include <stdio.h>

#define ENTRY_ARGC_MAX   32u
#define ENTRY_STRING_MAX 128u
#define ENTRIES_SHOWN    10

struct slow_entry {
    struct list_node node;
    uint64_t id, time_s, took_us;
    uint32_t argc;
    struct buffer words; /* lengths are in word_len */
    uint32_t word_len[ENTRY_ARGC_MAX];
    char peer[64];
    char *name; /* owns; NULL: none */
};

struct slow_log {
    struct list entries; /* newest first */
    uint64_t count, next_id;
};

int slow_log_create(struct slow_log **out)
{
    *out = mem_zalloc(sizeof(**out));
    if (*out == NULL)
        return ERR_FULL;
    list_init(&(*out)->entries);
    return 0;
}

static void entry_free(struct slow_log *log, struct slow_entry *entry)
{
    list_remove(&entry->node);
    log->count--;
    buffer_deinit(&entry->words);
    mem_free(entry->name);
    mem_free(entry);
}

static void trim(struct slow_log *log, uint64_t count_max)
{
    while (log->count > count_max)
        entry_free(log, CONTAINER_OF(list_last(&log->entries), struct slow_entry, node));
}

void slow_log_destroy(struct slow_log **log)
{
    if (*log == NULL)
        return;
    trim(*log, 0);
    mem_free(*log);
    *log = NULL;
}

static void word_add(struct slow_entry *entry, struct bytes word)
{
    size_t before = entry->words.len;

    if (word.len > ENTRY_STRING_MAX) {
        buffer_append(&entry->words, word.data, ENTRY_STRING_MAX);
        buffer_append_format(&entry->words, "... (%zu more bytes)", word.len - ENTRY_STRING_MAX);
    } else {
        buffer_append(&entry->words, word.data, word.len);
    }
    entry->word_len[entry->argc++] = (uint32_t)(entry->words.len - before);
}

static struct slow_entry *entry_create(const struct session *session, const struct bytes *argv, uint32_t argc)
{
    struct slow_entry *entry = mem_zalloc(sizeof(*entry));
    uint32_t shown = argc > ENTRY_ARGC_MAX ? ENTRY_ARGC_MAX - 1 : argc;

    if (entry == NULL)
        return NULL;
    for (uint32_t i = 0; i < shown; i++)
        word_add(entry, secret_shown(argv, argc, i));
    if (shown < argc) {
        size_t before = entry->words.len;

        buffer_append_format(&entry->words, "... (%u more arguments)", argc - shown);
        entry->word_len[entry->argc++] = (uint32_t)(entry->words.len - before);
    }
    if (entry->words.failed) {
        buffer_deinit(&entry->words);
        mem_free(entry);
        return NULL;
    }
    memcpy(entry->peer, session->peer, sizeof(entry->peer));
    entry->name = session->name != NULL ? must_strdup(session->name) : NULL;
    return entry;
}

void slow_log_note(struct engine *engine, const struct session *session, const struct bytes *argv,
                   uint32_t argc, uint64_t took_us)
{
    struct slow_log *log = engine->slow_log;
    int64_t least_us = engine->settings->slow_log_slower_than_us;
    struct slow_entry *entry;

    if (LIKELY(least_us < 0 || took_us < (uint64_t)least_us))
        return;
    engine->counters.slow++;
    entry = entry_create(session, argv, argc);
    if (entry == NULL)
        return;
    entry->id = log->next_id++;
    entry->time_s = engine->now_ms / 1000;
    entry->took_us = took_us;
    list_push_front(&log->entries, &entry->node);
    log->count++;
    trim(log, engine->settings->slow_log_len_max);
}

/* ---- SLOWLOG --------------------------------------------------------------------------------- */

static void reply_entry(struct cmd *c, const struct slow_entry *entry)
{
    size_t off = 0;

    reply_array(c, 6);
    reply_integer(c, (int64_t)entry->id);
    reply_integer(c, (int64_t)entry->time_s);
    reply_integer(c, (int64_t)entry->took_us);
    reply_array(c, entry->argc);
    for (uint32_t i = 0; i < entry->argc; i++) {
        reply_bulk(c, bytes_of(entry->words.data + off, entry->word_len[i]));
        off += entry->word_len[i];
    }
    reply_bulk_string(c, entry->peer);
    reply_bulk_string(c, entry->name != NULL ? entry->name : "");
}

void cmd_slowlog_get(struct cmd *c)
{
    struct slow_log *log = c->engine->slow_log;
    int64_t count = ENTRIES_SHOWN;

    if (c->argc > 3) {
        reply_subcommand_error(c);
        return;
    }
    if (c->argc == 3 && !arg_i64_range(c, 2, -1, INT64_MAX, &count,
                                       "ERR count should be greater than or equal to -1"))
        return;
    if (count == -1 || (uint64_t)count > log->count)
        count = (int64_t)log->count;
    reply_array(c, (uint64_t)count);
    LIST_FOR_EACH (&log->entries, node) {
        if (count-- == 0)
            break;
        reply_entry(c, CONTAINER_OF(node, struct slow_entry, node));
    }
}

void cmd_slowlog_len(struct cmd *c)
{
    reply_integer(c, (int64_t)c->engine->slow_log->count);
}

void cmd_slowlog_reset(struct cmd *c)
{
    trim(c->engine->slow_log, 0);
    reply_ok(c);
}

void cmd_slowlog_help(struct cmd *c)
{
    static const char *const lines[] = {
        "GET [<count>]",
        "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
        "    Entries are made of:",
        "    id, timestamp, time in microseconds, arguments array, client IP and port,",
        "    client name",
        "LEN",
        "    Return the length of the slowlog.",
        "RESET",
        "    Reset the slowlog.",
    };

    reply_help(c, "SLOWLOG", lines, ARRAY_COUNT(lines));
}
