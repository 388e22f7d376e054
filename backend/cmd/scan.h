/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan.h - what SCAN, HSCAN, SSCAN and ZSCAN share: the cursor, MATCH and COUNT, the reply.
 *
 * The reply's cursor stands in front of elements that are only known behind it, so the walk is made twice: once
 * to count, once to tell. Nothing changes in between.
 */
#pragma once
#include "backend/cmd/cmd.h"

struct scan {
    struct cmd *c;
    uint64_t cursor; /* where to begin */
    uint64_t count;  /* COUNT */
    struct bytes match;
    bool has_match;
    struct bytes type; /* TYPE; data NULL: any */
    uint64_t seen, matched; /* in this pass */
    bool is_telling;
};

/* The cursor in argument i, as strtoul() takes it. False: the error was replied. */
bool scan_cursor(struct cmd *c, uint32_t i, struct scan *scan);
/* MATCH, COUNT and (SCAN's own) TYPE from argument i on. False: the error was replied. */
bool scan_options(struct scan *scan, uint32_t i, bool with_type);
/* The reply of a key that is not there. */
void scan_reply_empty(struct cmd *c);

/* Goes a step from `cursor`, giving each element to scan_element(); returns the next cursor. */
typedef uint64_t (*scan_step_fn)(struct scan *scan, const void *arg, uint64_t cursor);
/* Replies; each element is `width` replies. */
void scan_reply(struct scan *scan, uint32_t width, scan_step_fn step, const void *arg);
/* True: it is told; its name has been replied, what goes with it is to follow. */
bool scan_element(struct scan *scan, struct bytes name);
