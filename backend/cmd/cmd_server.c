/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands about the server: TIME, ROLE, LOLWUT, saving, SHUTDOWN, MONITOR, and what Redis answers for a cluster
 * that it is not part of.
 *
 * Saving: the log is the database, and what was answered is in it as `appendfsync` says, whether anybody saves or
 * not. So SAVE, BGSAVE and BGREWRITEAOF have nothing to save: they start a checkpoint, which makes the next start
 * quick.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/help.h"
#include "backend/cmd/settings.h"
#include "common/base/mem.h"
#include "common/io/io.h"

#include <stdio.h>

#define REDIS_VERSION "7.0.15"

void reply_help(struct cmd *c, const char *name, const char *const *lines, size_t count)
{
    char title[96];

    snprintf(title, sizeof(title), "%s <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", name);
    reply_array(c, count + 3);
    reply_status(c, title);
    for (size_t i = 0; i < count; i++)
        reply_status(c, lines[i]);
    reply_status(c, "HELP");
    reply_status(c, "    Prints this help.");
}

void reply_subcommand_error(struct cmd *c)
{
    char name[32];
    size_t len = 0;

    for (; len < c->argv[0].len && len < sizeof(name) - 1; len++)
        name[len] = (char)(ascii_lower(c->argv[0].data[len]) - 'a' + 'A');
    name[len] = '\0';
    reply_error_format(c, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try %s HELP.",
                       BYTES_ARG(bytes_first(c->argv[1], 128)), name);
}

void cmd_time(struct cmd *c)
{
    uint64_t now_us = io_wall_us(c->engine->io);

    reply_array(c, 2);
    reply_bulk_integer(c, (int64_t)(now_us / 1000000));
    reply_bulk_integer(c, (int64_t)(now_us % 1000000));
}

void cmd_role(struct cmd *c)
{
    reply_array(c, 3);
    reply_bulk_string(c, "master");
    reply_integer(c, 0);
    reply_array(c, 0);
}

/* A shard: its frames in a ring, the newest on top. */
void cmd_lolwut(struct cmd *c)
{
    static const char art[] = "      .-~~~-.\n"
                              "    .'  ___  '.      ~ ~ the water runs over,\n"
                              "   /  .'   '.  \\       and nothing is lost ~ ~\n"
                              "===|==|=====|==|================================\n"
                              "   |  |     |  |   ~~~~~    ~~~~~~     ~~~~~\n"
                              "~~~'~~'~~~~~'~~'~~~     ~~~~      ~~~~~     ~~~~\n"
                              "\nRedis ver. " REDIS_VERSION "\n";
    int64_t version;

    if (c->argc >= 3 && arg_is(c, 1, "version") && !arg_i64(c, 2, &version))
        return;
    reply_verbatim(c, "txt", BYTES(art));
}

/* ---- saving ---------------------------------------------------------------------------------- */

void cmd_lastsave(struct cmd *c)
{
    reply_integer(c, (int64_t)(engine_last_save_ms(c->engine) / 1000));
}

/* Milliseconds of the epoch: when the newest checkpoint was made; before the first: when the shard began. */
uint64_t engine_last_save_ms(struct engine *engine)
{
    struct store_stats stats;

    store_stats_get(engine->store, &stats);
    if (stats.checkpoints != engine->save_count) {
        engine->save_count = stats.checkpoints;
        engine->save_ms = engine->now_ms;
    }
    return engine->save_ms != 0 ? engine->save_ms : engine->started_ms;
}

void cmd_bgsave(struct cmd *c)
{
    if (c->argc > 2 || (c->argc == 2 && !arg_is(c, 1, "schedule"))) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    MAYBE(store_checkpoint(c->store));
    reply_status(c, c->in_exec ? "Background saving scheduled" : "Background saving started");
}

void cmd_bgrewriteaof(struct cmd *c)
{
    MAYBE(store_checkpoint(c->store));
    reply_status(c, c->in_exec ? "Background append only file rewriting scheduled"
                               : "Background append only file rewriting started");
}

/* Who has the answer may copy the disk or cut its power. It waits in front of its connection, while others go on. */
void cmd_save(struct cmd *c)
{
    struct session *s = c->session;
    int err;

    if (s->save == 0)
        s->save = store_checkpoint(c->store);
    err = store_checkpoint_result(c->store, s->save);
    if (err == -EINPROGRESS) {
        session_wait_for_state(s);
        c->is_parked = true;
        return;
    }
    s->save = 0;
    if (err == 0)
        reply_ok(c);
    else
        reply_error_format(c, "ERR no checkpoint was written: %s", err_text(err));
}

static bool shutdown_flag(struct cmd *c, uint32_t i, uint32_t *flags)
{
    static const struct {
        const char *word;
        uint32_t flag;
    } words[] = {{"nosave", 1}, {"save", 2}, {"now", 4}, {"force", 8}, {"abort", 16}};

    for (size_t j = 0; j < ARRAY_COUNT(words); j++)
        if (arg_is(c, i, words[j].word)) {
            *flags |= words[j].flag;
            return true;
        }
    return false;
}

/* The node ends as by SIGTERM: the log is flushed and a checkpoint is written, also with NOSAVE. A shard whose disk
 * has failed holds what only its memory and log ring have: without FORCE or NOSAVE it does not go. */
void cmd_shutdown(struct cmd *c)
{
    struct store_stats stats;
    uint32_t flags = 0;

    for (uint32_t i = 1; i < c->argc; i++)
        if (!shutdown_flag(c, i, &flags)) {
            reply_error(c, ERROR_SYNTAX);
            return;
        }
    if (((flags & 16) && flags != 16) || (flags & 3) == 3) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if (flags == 16) {
        reply_error(c, "ERR No shutdown in progress.");
        return;
    }
    store_stats_get(c->store, &stats);
    if (c->engine->options.stop == NULL || (stats.is_read_only && (flags & (1 | 8)) == 0)) {
        reply_error(c, "ERR Errors trying to SHUTDOWN. Check logs.");
        return;
    }
    c->session->close_after_reply = true;
    c->engine->options.stop(c->engine->options.stop_arg);
}

/* ---- no cluster ------------------------------------------------------------------------------ */

static void no_cluster(struct cmd *c)
{
    reply_error(c, "ERR This instance has cluster support disabled");
}

#define NO_CLUSTER(name)                                                                           \
    void cmd_##name(struct cmd *c)                                                                 \
    {                                                                                              \
        no_cluster(c);                                                                             \
    }
NO_CLUSTER(asking)
NO_CLUSTER(readonly)
NO_CLUSTER(readwrite)
NO_CLUSTER(cluster_addslots)
NO_CLUSTER(cluster_addslotsrange)
NO_CLUSTER(cluster_bumpepoch)
NO_CLUSTER(cluster_count_failure_reports)
NO_CLUSTER(cluster_countkeysinslot)
NO_CLUSTER(cluster_delslots)
NO_CLUSTER(cluster_delslotsrange)
NO_CLUSTER(cluster_failover)
NO_CLUSTER(cluster_flushslots)
NO_CLUSTER(cluster_forget)
NO_CLUSTER(cluster_getkeysinslot)
NO_CLUSTER(cluster_help)
NO_CLUSTER(cluster_info)
NO_CLUSTER(cluster_keyslot)
NO_CLUSTER(cluster_links)
NO_CLUSTER(cluster_meet)
NO_CLUSTER(cluster_myid)
NO_CLUSTER(cluster_nodes)
NO_CLUSTER(cluster_replicas)
NO_CLUSTER(cluster_replicate)
NO_CLUSTER(cluster_reset)
NO_CLUSTER(cluster_saveconfig)
NO_CLUSTER(cluster_set_config_epoch)
NO_CLUSTER(cluster_setslot)
NO_CLUSTER(cluster_shards)
NO_CLUSTER(cluster_slaves)
NO_CLUSTER(cluster_slots)
