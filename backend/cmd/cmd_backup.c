/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What weirctl backup asks of a shard (backend/store/backup.h).
 *
 *     DEBUG BACKUP START      the id of a new one
 *     DEBUG BACKUP STATUS id  none | running | ready | failed, why, directory, shard, count of shards, lsn, wall clock
 *                             in ms, given lsn, file ...
 *     DEBUG BACKUP END id     OK; an error: it was not held any more
 *
 * It ends with the connection that began it, too.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/store/backup.h"
#include "common/base/err.h"

static void backup_status(struct cmd *c, uint64_t id)
{
    static const char *const states[] = {
        [BACKUP_NONE] = "none", [BACKUP_RUNNING] = "running", [BACKUP_READY] = "ready", [BACKUP_FAILED] = "failed",
    };
    struct backup_status status;
    char name[BACKUP_NAME_MAX];

    backup_status_get(c->store, id, &status);
    reply_array(c, 8 + (uint64_t)status.file_count);
    reply_bulk_string(c, states[status.state]);
    reply_bulk_string(c, status.err != 0 ? err_text(status.err) : "");
    reply_bulk_string(c, status.dir != NULL ? status.dir : "");
    reply_integer(c, status.shard);
    reply_integer(c, status.shard_count);
    reply_integer(c, (int64_t)status.lsn);
    reply_integer(c, (int64_t)status.wall_ms);
    reply_integer(c, (int64_t)status.given_lsn);
    for (uint32_t i = 0; i < status.file_count; i++) {
        backup_file_name(c->store, i, name);
        reply_bulk_string(c, name);
    }
}

static void backup_begin(struct cmd *c)
{
    uint64_t id;
    int err = backup_start(c->store, &id);

    if (err == 0) {
        c->session->backup_id = id;
        reply_integer(c, (int64_t)id);
    } else {
        reply_error_format(c, "ERR no backup can be started: %s",
                           err == ERR_EXISTS        ? "one is under way"
                           : err == ERR_UNSUPPORTED ? "nothing is kept on disk"
                                                    : err_text(err));
    }
}

void debug_backup(struct cmd *c)
{
    uint64_t id = 0;
    bool has_id = c->argc == 4 && bytes_to_u64(c->argv[3], INT64_MAX, &id);

    if (arg_is(c, 2, "start") && c->argc == 3)
        backup_begin(c);
    else if (arg_is(c, 2, "status") && has_id)
        backup_status(c, id);
    else if (!arg_is(c, 2, "end") || !has_id)
        reply_error(c, "ERR it is DEBUG BACKUP START, STATUS id, or END id");
    else if (backup_end(c->store, id))
        reply_ok(c);
    else
        reply_error(c, "ERR this backup was not held any more");
}
