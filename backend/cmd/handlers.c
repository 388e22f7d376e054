/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/handlers.h"

#include "backend/cmd/cmd_private.h"

/* Containers: dispatch goes on to the subcommand, or has refused the count of arguments. */
#define cmd_client  NULL
#define cmd_cluster NULL
#define cmd_config  NULL
#define cmd_latency NULL
#define cmd_memory  NULL
#define cmd_object  NULL
#define cmd_pubsub  NULL
#define cmd_slowlog NULL

#define HANDLER_HOME_BACKEND(id, handler) [id] = handler,
#define HANDLER_HOME_PROXY(id, handler)   [id] = handler,
#define HANDLER_HOME_LATER(id, handler)

static const cmd_handler handlers[COMMAND_COUNT] = {
#define COMMAND(id, name, arity, flags, keys, route, home, ...)                                    \
    HANDLER_##home(COMMAND_##id, cmd_##id)
#define SUBCOMMAND(up, id, name, arity, flags, keys, route, home, ...)                             \
    HANDLER_##home(COMMAND_##up##_##id, cmd_##up##_##id)
#include "common/command/command.def"
#undef COMMAND
#undef SUBCOMMAND
};

cmd_handler handler_of(uint16_t id)
{
    ASSERT(id < COMMAND_COUNT && handlers[id] != NULL);
    return handlers[id];
}
