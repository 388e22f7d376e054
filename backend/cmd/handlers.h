/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handlers.h - a prototype for each row of the command table: cmd_get(), cmd_config_get() ...
 *
 * Rows of HOME_LATER have one as well, and no function. A row with subcommands needs a function only where it
 * can be called without one (COMMAND).
 */
#pragma once
#include "backend/cmd/cmd.h"

#define COMMAND(id, ...)            void cmd_##id(struct cmd *c);
#define SUBCOMMAND(parent, id, ...) void cmd_##parent##_##id(struct cmd *c);
#include "common/command/command.def"
#undef COMMAND
#undef SUBCOMMAND
