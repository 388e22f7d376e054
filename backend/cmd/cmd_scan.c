/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/handlers.h"
#include "backend/cmd/key_move.h"
#include "backend/cmd/scan.h"

static void scan_each_key(void *arg, struct entry *e)
{
    struct scan *scan = arg;

    if (scan->type.data != NULL && !bytes_equal_nocase(scan->type, bytes_of_string(key_type_name(e)))) {
        scan->seen++;
        return;
    }
    if (scan_element(scan, entry_key(e)))
        session_hold(scan->c->session, entry_lsn(e));
}

static uint64_t scan_step_keys(struct scan *scan, const void *arg, uint64_t cursor)
{
    MAYBE(arg);
    return store_scan(scan->c->store, scan->c->db, cursor, scan_each_key, scan);
}

void cmd_scan(struct cmd *c)
{
    struct scan scan;

    if (!scan_cursor(c, 1, &scan) || !scan_options(&scan, 2, true))
        return;
    session_hold(c->session, store_absent_lsn(c->store));
    scan_reply(&scan, 1, scan_step_keys, NULL);
}
