/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command_docs.h - what COMMAND and its subcommands answer, out of the table.
 *
 * The shapes are those of Redis 7.0 in either dialect. The table does not have arguments, history,
 * complexity nor how exactly a key is used: DOCS leaves the former out, and a key spec says "RO access"
 * for reads and "RW access update" for everything else.
 */
#pragma once
#include "common/base/bytes.h"

/* Where the reply goes, in order, in many small pieces. */
struct compose_sink {
    void (*write)(void *arg, const char *data, size_t len);
    void *arg;
};

/* The whole reply, an error line included, to the request argv[0 .. argc-1] ("COMMAND", "INFO", "get");
 * wrong subcommands and counts of arguments are answered as well. Rows with any of `hidden_flags`
 * (CMD_DENIED, CMD_LATER) are treated as if they were not there. */
void command_reply_compose(const struct bytes *argv, uint32_t argc, bool is_resp3,
                           uint32_t hidden_flags, const struct compose_sink *sink);
