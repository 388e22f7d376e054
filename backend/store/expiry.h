/* SPDX-License-Identifier: Apache-2.0 */
/*
 * expiry.h - finds keys whose time is over though nobody asks for them.
 *
 * A hand goes round the index, as many entries a call as pays: while more than a tenth of the keys with a time
 * to live that it meets are over, it doubles its pace up to the caller's budget; when hardly any is, it slows
 * down to a walk. As places in the index are random, what it met of late is a fair sample of the whole: that is
 * the estimate of how many are waiting. (Redis draws random samples for that, and keeps a second table of the
 * keys with a time to live, 24 bytes each.)
 *
 *   Y1  A call looks at no more entries than its budget says, but for the rest of a bucket.
 *   Y2  Without keys that expire it looks at nothing.
 *   Y3  Each bucket comes up once a round, so no key waits for ever; the pace never falls below
 *       EXPIRY_PACE_MIN entries a call.
 */
#pragma once
#include "backend/store/index.h"

#define EXPIRY_PACE_MIN 32u

struct expiry {
    uint64_t hand; /* bucket */
    uint32_t pace; /* entries a call */
    /* Of the last few thousand keys with a time to live: how many were met, and were over. Older ones count less. */
    double met, over;
};

void expiry_init(struct expiry *expiry);
/* Calls `each`, which may remove the entry, for expired ones; returns how many. `expiring_count`: keys that have a
 * time to live. Must not be called while the index is being walked. */
uint32_t expiry_work(struct expiry *expiry, struct index *index, uint64_t now_ms,
                     uint64_t expiring_count, uint32_t budget, index_each_fn each, void *arg);
/* About how many of these are over and still there. */
uint64_t expiry_estimate(const struct expiry *expiry, uint64_t expiring_count);
