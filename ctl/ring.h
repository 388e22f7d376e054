/* SPDX-License-Identifier: Apache-2.0 */
/* ring.h - the log ring that a killed node has left on this host (backend/store/ring.h). */
#pragma once
#include "ctl/shard.h"

enum ring_state {
    RING_NONE,    /* there is none, or the directory has no name */
    RING_FOREIGN, /* from before the host was restarted, or never begun: a start does not use it */
    RING_DAMAGED, /* its header or its size: a start is refused, if the node was killed */
    RING_THERE,
};

struct ring {
    enum ring_state state;
    char path[96];
    char *data; /* owns: as it was when it was looked at */
    uint32_t page_count;
    unsigned mode;     /* of the file; with rights for others a start refuses it */
    uint64_t appended; /* up to where changes were answered */
};

/* Of a shard whose node is stopped. 0; -errno: it is there and cannot be read (told on stderr); ERR_CORRUPT: node.id, which
 * names it, is damaged (told to the report). */
MUST_USE int ring_open(const struct shard *shard, struct ring *out);
/* What it has behind `lsn`, in whole units, whatever they continue. */
struct ring_rest {
    uint64_t records, lsn; /* how many, and the last one's; 0: nothing */
    uint64_t bad_off;      /* where a frame lies that does not verify; 0: all do */
};
void ring_rest(const struct ring *ring, uint64_t lsn, struct ring_rest *out);
void ring_close(struct ring *ring);
