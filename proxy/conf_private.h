/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conf_private.h - what the files of conf share.
 */
#pragma once
#include "proxy/conf.h"

/* ---- lines ------------------------------------------------------------------------------------------ */

/* One line of `servers:`. `needs_weight`: twemproxy's form; else "host:port" is enough. */
MUST_USE int conf_read_server(struct conf_reader *reader, const struct conf_node *node,
                              bool needs_weight, struct conf_server *server);
/* "name" or "name:weight". */
MUST_USE int conf_read_master(struct conf_reader *reader, const struct conf_node *node,
                              struct conf_master *master);

/* ---- parts ------------------------------------------------------------------------------------------ */

MUST_USE int conf_read_pool(struct conf_reader *reader, const struct conf_node *key,
                            struct conf_pool *pool);
void conf_process_defaults(struct conf_process *process);
MUST_USE int conf_read_process(struct conf_reader *reader, const struct conf_node *mapping,
                               struct conf_process *process);

/* twemproxy's order of names: length, then bytes. */
int conf_compare_names(const char *a, const char *b);

extern const char *const conf_members_names[], *const conf_protocol_names[],
    *const conf_eject_names[], *const conf_accept_names[];
