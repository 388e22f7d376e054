/* SPDX-License-Identifier: Apache-2.0 */
/*
 * help.h - the answer of COMMAND HELP and its like.
 */
#pragma once
#include "backend/cmd/cmd.h"

/* "NAME <subcommand> ...", the lines, and HELP itself. */
void reply_help(struct cmd *c, const char *name, const char *const *lines, size_t count);
/* "unknown subcommand or wrong number of arguments for ...": of subcommands whose count only they know. */
void reply_subcommand_error(struct cmd *c);
