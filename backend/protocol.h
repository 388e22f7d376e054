/* SPDX-License-Identifier: Apache-2.0 */
/*
 * protocol.h - what a new connection speaks, by its first bytes.
 *
 *     0x80                                        memcache binary
 *     '*'                                         RESP
 *     a line whose first word is a memcache verb in lower case      memcache text
 *     any other line                              an inline command of Redis
 *
 * But `set k v` and `append k v`, three words, come from somebody who types, or pipes, Redis's commands: memcache's lines
 * of these verbs have five or six, and with four a length is missing, behind which a value may follow. Other verbs that
 * both have (get, incr, touch) are memcache's. Empty lines, of blanks too, say nothing: who types one is asked again by
 * what comes next. Blanks before a word are Redis's.
 */
#pragma once
#include "backend/cmd/session.h"

/* Of the empty lines that `data` begins with. */
size_t protocol_empty_lines(struct bytes data);
/* SESSION_NEW: more bytes are needed to tell. Begins behind the empty lines. */
enum session_protocol protocol_of(struct bytes data);
