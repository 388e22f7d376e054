/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands behind the library of commands while families are written: what is not there answers as an unknown
 * command. Nothing of it is linked once all are there.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"

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
