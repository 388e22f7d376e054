/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node_client.h - a shard's port: one command, one answer, waited for.
 */
#pragma once
#include "common/base/buffer.h"

#define NODE_PASSWORD_ENV "WEIRCTL_AUTH" /* an argument would be seen by everybody */

/* What a command answered: a text, a number, an error, or a list of texts and numbers (as texts). */
struct node_answer {
    struct buffer text; /* owns; items one after the other, each ends with a NUL */
    uint32_t count;     /* of items */
    bool is_error;
};
void node_answer_deinit(struct node_answer *answer);
const char *node_answer_item(const struct node_answer *answer, uint32_t i); /* "" behind the last one */

/* Connects, and gives the password of the environment, if there is one. A descriptor, or an error, told on stderr:
 * `is_nobody` if there was no connection. */
int node_connect(const char *host, uint16_t port, bool *is_nobody);
/* Words of a command, by spaces. 0, or an error: nobody answers, or not in its language. */
MUST_USE int node_ask(int fd, const char *command, struct node_answer *out);
const char *node_error_text(int err); /* of node_ask() */
