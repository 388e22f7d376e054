/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands behind the library of commands while families are written: what is not there answers as an unknown
 * command. Nothing of it is linked once all are there.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/settings.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/latency.h"
#include "backend/cmd/pubsub.h"
#include "backend/cmd/slowlog.h"

#include "common/base/mem.h"

#define WEAK __attribute__((weak))

static void missing(struct cmd *c)
{
    reply_error_format(c, "ERR unknown command '%.*s', with args beginning with: ",
                       BYTES_ARG(bytes_first(c->argv[0], 128)));
}

#define HANDLER_HOME_BACKEND(id)                                                                   \
    WEAK void id(struct cmd *c)                                                                    \
    {                                                                                              \
        missing(c);                                                                                \
    }
#define HANDLER_HOME_PROXY(id) HANDLER_HOME_BACKEND(id)
#define HANDLER_HOME_LATER(id)
#define COMMAND(id, name, arity, flags, keys, route, home, ...) HANDLER_##home(cmd_##id)
#define SUBCOMMAND(up, id, name, arity, flags, keys, route, home, ...) HANDLER_##home(cmd_##up##_##id)
#include "common/command/command.def"
#undef COMMAND
#undef SUBCOMMAND

WEAK int settings_create(const struct engine_options *options, struct settings **out)
{
    *out = must_zalloc(sizeof(**out));
    (*out)->password = options->password != NULL ? must_strdup(options->password) : NULL;
    (*out)->memory_max = options->memory_max;
    (*out)->fsync = (uint8_t)options->fsync;
    (*out)->clients_max = options->clients_max;
    (*out)->bulk_max = 512u << 20;
    (*out)->query_buffer_max = 1u << 30;
    (*out)->slow_log_slower_than_us = -1;
    (*out)->mc_value_max = 1u << 20;
    return 0;
}

WEAK void settings_destroy(struct settings **settings)
{
    if (*settings != NULL)
        mem_free((*settings)->password);
    mem_free(*settings);
    *settings = NULL;
}

WEAK int pubsub_create(struct pubsub_table **out)
{
    *out = NULL;
    return 0;
}

WEAK void pubsub_destroy(struct pubsub_table **table)
{
    *table = NULL;
}

WEAK void pubsub_session_clear(struct session *session)
{
    MAYBE(session);
}

WEAK bool pubsub_is_subscribed(const struct session *session)
{
    return session->subscriptions != NULL;
}

WEAK struct pubsub_counts pubsub_counts_of(const struct session *session)
{
    MAYBE(session);
    return (struct pubsub_counts){0};
}

WEAK void pubsub_notify(struct engine *engine, enum notify_flag class, const char *event, struct bytes key, uint8_t db)
{
    MAYBE(engine);
    MAYBE(class);
    MAYBE(event);
    MAYBE(key.len);
    MAYBE(db);
}

WEAK bool pubsub_is_monitored(const struct engine *engine)
{
    MAYBE(engine);
    return false;
}

WEAK void pubsub_monitor_feed(struct engine *engine, const struct session *session, const struct bytes *argv, uint32_t argc)
{
    MAYBE(engine);
    MAYBE(session);
    MAYBE(argv);
    MAYBE(argc);
}

WEAK bool pubsub_is_monitor(const struct session *session)
{
    MAYBE(session);
    return false;
}

WEAK int slow_log_create(struct slow_log **out)
{
    *out = NULL;
    return 0;
}

WEAK void slow_log_destroy(struct slow_log **log)
{
    *log = NULL;
}

WEAK void slow_log_note(struct engine *engine, const struct session *session, const struct bytes *argv, uint32_t argc,
                   uint64_t took_us)
{
    MAYBE(engine);
    MAYBE(session);
    MAYBE(argv);
    MAYBE(argc);
    MAYBE(took_us);
}

WEAK int latency_create(struct latency **out)
{
    *out = NULL;
    return 0;
}

WEAK void latency_destroy(struct latency **latency)
{
    *latency = NULL;
}

WEAK void latency_command_note(struct engine *engine, const struct command *command, uint64_t took_us)
{
    MAYBE(engine);
    MAYBE(command);
    MAYBE(took_us);
}

WEAK bool settings_password_fits(const struct settings *settings, struct bytes password)
{
    return settings->password != NULL && bytes_equal(bytes_of_string(settings->password), password);
}
