/* SPDX-License-Identifier: Apache-2.0 */
/* Until the log is in the tree, a store has no directory: these are linked and never called. */
#include "backend/store/log.h"

#define NEVER(signature)                                                                           \
    __attribute__((weak)) signature                                                                \
    {                                                                                              \
        UNREACHABLE("there is no log yet");                                                        \
    }

NEVER(int store_log_create(const struct store_log_options *options, struct store_log **out))
NEVER(void store_log_open(struct store_log *log, void (*done)(void *arg, int err), void *arg))
NEVER(void store_log_recover(struct store_log *log, uint64_t hot_from, uint64_t cold_from, const struct store_log_replay *replay))
NEVER(void store_log_close(struct store_log *log, void (*done)(void *arg, int err), void *arg))
__attribute__((weak)) void store_log_destroy(struct store_log **log)
{
    ASSERT(*log == NULL);
}
NEVER(void store_log_fsync_set(struct store_log *log, enum store_fsync fsync))
NEVER(int store_log_append(struct store_log *log, struct record *record, uint64_t *address))
NEVER(int store_log_cold_append(struct store_log *log, const struct record *record, unsigned class, uint64_t *address))
NEVER(void store_log_atomic(struct store_log *log, bool begins))
NEVER(void store_log_turn_end(struct store_log *log))
NEVER(void store_log_flush(struct store_log *log, void (*done)(void *arg, int err), void *arg))
NEVER(struct store_marks store_log_marks(const struct store_log *log))
NEVER(uint64_t store_log_last_lsn(const struct store_log *log))
NEVER(void store_log_lsn_floor(struct store_log *log, uint64_t lsn))
NEVER(bool store_log_has_room(const struct store_log *log))
NEVER(int store_log_error(const struct store_log *log))
NEVER(bool store_log_is_disk_full(const struct store_log *log))
NEVER(void store_log_read(struct store_log *log, struct store_log_read *read))
NEVER(void store_log_walk(struct store_log *log, struct store_log_walk *walk))
NEVER(uint32_t store_log_segment_count(const struct store_log *log))
NEVER(struct segment_info *store_log_segment(struct store_log *log, uint32_t i))
NEVER(struct segment_info *store_log_segment_find(struct store_log *log, uint64_t sequence))
NEVER(void store_log_pin(struct store_log *log, uint64_t sequence, bool on))
NEVER(void store_log_cleaned(struct store_log *log, uint64_t sequence))
NEVER(void store_log_release(struct store_log *log, uint64_t hot_from, uint64_t cold_from))
NEVER(uint64_t store_log_hot_sequence(const struct store_log *log))
NEVER(uint64_t store_log_cold_sequence(const struct store_log *log))
NEVER(uint64_t store_log_next_sequence(const struct store_log *log))
NEVER(void store_log_stats_get(const struct store_log *log, struct store_log_stats *out))
NEVER(uint64_t store_log_hash_seed(const struct store_log *log))
