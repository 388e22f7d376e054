/* SPDX-License-Identifier: Apache-2.0 */
/*
 * redis_local.h - for the files that answer Redis commands in the proxy.
 */
#pragma once
#include "proxy/session.h"

/* What HELLO and INFO say of the protocol's version: the Redis whose commands and replies these are. */
#define REDIS_VERSION_SPOKEN "7.0.15"
#define CLIENT_NAME_ERROR                                                                          \
    "ERR Client names cannot contain spaces, newlines or special characters."

void reply_bulk(struct client *client, struct bytes text);
void reply_integer(struct client *client, int64_t number);
void reply_null(struct client *client);
void reply_lines(struct client *client, const char *const *lines, size_t count);
/* Sets one of the session's texts (offset of a struct buffer); false: `error` was answered. */
bool local_set_text(struct client *client, size_t offset, struct bytes text, const char *error);

/* redis_client.c: CLIENT and its subcommands. */
void redis_client(struct client *client, const struct command *command,
                  const struct resp_request *request);
/* redis_info.c */
void redis_info(struct client *client, const struct resp_request *request);
