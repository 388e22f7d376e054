/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mc_private.h - what the files of memcache's commands share.
 *
 * Of memcached's item, an entry has the value, flags, expiry and cas (the LSN of the last change). What is left
 * is cheap and may be lost:
 *
 *   fetched (h)       entry_access() > 0. S3-FIFO counts it down in values that nobody uses.
 *   stale, token sent entry_mc_flags(), above the flags. Stale is logged, sent is not.
 *   last access (l)   a table by hash with one slot for several keys, written when memcached would write its item's
 *                     time: when an item is stored, and at its second fetch. A key whose slot another one has
 *                     taken was last used before that one: the age of the shard is told.
 */
#pragma once
#include "backend/cmd/settings.h"
#include "backend/cmd/mc.h"
#include "backend/cmd/reply.h"
#include "common/io/io.h"

#define MC_VERSION "1.6.18"
#define MC_TIME_SLOTS (1u << 14)
#define MC_RELATIVE_MAX (60 * 60 * 24 * 30)
/* An absolute time that has always passed. */
#define MC_EXPIRED 1u

struct mc {
    struct engine *engine;
    struct io_timer flush_timer; /* flush_all with a delay */
    uint64_t flush_at_ms;        /* of the epoch; 0: none */
    bool has_detail;             /* stats detail on */
    bool has_expired;            /* the key that mc_find() did not find: just now */
    struct mc_prefix *prefixes;  /* owns MC_PREFIX_MAX of them; NULL: none yet */
    uint32_t prefix_count;
    struct {
        uint32_t tag, time_s; /* since the start of the shard; tag 0: free */
    } times[MC_TIME_SLOTS];
};

/* ---- one command's view of the store --------------------------------------------------------- */

/* Why a command did not do what it should. */
enum mc_trouble {
    MC_FINE,
    MC_PARKED,    /* a cold value is on its way, or the log is behind: return CMD_PARKED */
    MC_NO_MEMORY, /* SERVER_ERROR out of memory storing object */
    MC_NO_DISK,
    MC_READ_ONLY,
    MC_UNREADABLE, /* the value's bytes on disk are damaged */
};
/* "SERVER_ERROR ...", without CRLF. */
const char *mc_trouble_text(enum mc_trouble trouble);
uint16_t mc_trouble_status(enum mc_trouble trouble); /* the binary protocol's */

/* Looks a key up. True: a string is there. Where not, key->entry tells whether another type is. Notes what the
 * reply depends on. */
bool mc_find(struct session *session, struct bytes name, struct store_key *key);
/* Makes the string's bytes be in memory. */
enum mc_trouble mc_need_value(struct session *session, const struct store_key *key);
enum mc_trouble mc_may_write(struct session *session, size_t grows);
uint64_t mc_cas(const struct entry *entry);
struct bytes mc_value(const struct entry *entry);
/* Of a value that may be cold: only mg's s asks so. */
uint64_t mc_value_len(const struct entry *entry);
/* memcached's bump: the fetch of an item. */
void mc_bump(struct session *session, const struct store_key *key);
/* Seconds since the item was stored or bumped. */
uint32_t mc_idle_s(struct session *session, const struct store_key *key);
/* Seconds to live, rounded up as memcached's clock does; -1: for ever. */
int64_t mc_ttl_of_s(const struct session *session, uint64_t expire_ms);
static inline int64_t mc_ttl_s(const struct session *session, const struct entry *entry)
{
    return mc_ttl_of_s(session, entry_expire_ms(entry));
}

/* Of the request's exptime: 0 never, else milliseconds of the epoch; MC_EXPIRED: at once. */
uint64_t mc_expire_ms(const struct session *session, int64_t exptime);
static inline int64_t mc_exptime_positive(int32_t exptime)
{
    return exptime < 0 ? MC_RELATIVE_MAX + 1 : exptime;
}
bool mc_is_past(const struct session *session, uint64_t expire_ms);

/* ---- changes --------------------------------------------------------------------------------- */

enum mc_mode { MC_MODE_SET, MC_MODE_ADD, MC_MODE_REPLACE, MC_MODE_APPEND, MC_MODE_PREPEND, MC_MODE_CAS };
enum mc_stored { MC_STORED, MC_NOT_STORED, MC_EXISTS, MC_NOT_FOUND, MC_STORE_TROUBLE };

struct mc_put {
    struct bytes key, value;
    uint64_t expire_ms, cas; /* cas 0: none was given */
    uint32_t flags;
    uint8_t mode;            /* enum mc_mode */
    bool may_stale;          /* meta I: an older cas stores a stale value */
    /* Results. */
    uint64_t new_cas;
    enum mc_trouble trouble;
};
enum mc_stored mc_store(struct session *session, struct mc_put *put);
/* A value was refused that is larger than any may be. `is_set`: nothing else than it was to be there. Never waits. */
void mc_too_large(struct session *session, struct bytes name, bool is_set);

enum mc_added { MC_ADDED, MC_ADD_NOT_FOUND, MC_ADD_NON_NUMERIC, MC_ADD_EXISTS, MC_ADD_TROUBLE };
struct mc_add {
    struct bytes key;
    uint64_t delta, cas; /* cas 0: any */
    bool is_decr;
    bool sets_expire;
    uint64_t expire_ms;
    /* Results. */
    uint64_t value, new_cas;
    struct store_key at; /* with MC_ADDED: the key; no entry if it expired at once */
    enum mc_trouble trouble;
};
enum mc_added mc_add(struct session *session, struct mc_add *add);

/* Sets the time to live of a string that was found; deletes it if the time is past. */
enum mc_trouble mc_touch(struct session *session, struct store_key *key, uint64_t expire_ms);
enum mc_trouble mc_remove(struct session *session, struct store_key *key);
/* Marks a string stale: its next reader will be told to fetch it anew. */
enum mc_trouble mc_mark_stale(struct session *session, struct store_key *key, bool sets_expire,
                              uint64_t expire_ms);
enum mc_trouble mc_flush_all(struct session *session, int64_t delay_s);

/* ---- out ------------------------------------------------------------------------------------- */

void mc_reply(struct session *session, const char *data, size_t len);
void mc_reply_line(struct session *session, const char *line); /* adds CRLF */
#define MC_APPEND_LITERAL(at, literal) (memcpy((at), (literal), sizeof(literal) - 1), (at) + sizeof(literal) - 1)
static inline char *mc_append(char *at, struct bytes bytes)
{
    memcpy(at, bytes.data, bytes.len);
    return at + bytes.len;
}

/* ---- the parts of the protocols -------------------------------------------------------------- */

enum cmd_result mc_meta_execute(struct session *session, const struct mc_request *request);

struct mc_stats_out {
    void (*stat)(struct mc_stats_out *out, const char *name, const char *value);
    struct session *session;
    void *arg;
};
void mc_stat_format(struct mc_stats_out *out, const char *name, const char *format, ...) PRINTF_LIKE(3, 4);
/* False: there is no such group. "" is the general one. "detail ..." and "reset" are not for here. */
bool mc_stats(struct mc_stats_out *out, struct bytes group);
void mc_stats_reset(struct engine *engine);

enum mc_detail { MC_DETAIL_GET, MC_DETAIL_SET, MC_DETAIL_DELETE };
void mc_detail_note_slow(struct mc *mc, enum mc_detail what, struct bytes key, bool is_hit);
static inline void mc_detail_note(struct session *session, enum mc_detail what, struct bytes key,
                                  bool is_hit)
{
    if (UNLIKELY(session->engine->mc->has_detail))
        mc_detail_note_slow(session->engine->mc, what, key, is_hit);
}
void mc_detail_dump(struct mc *mc, struct buffer *out); /* "PREFIX ...\r\n" ... "END\r\n" */

static inline void mc_turn_begin(struct session *session)
{
    if (UNLIKELY(!session->engine->is_turn_open))
        engine_turn_begin(session->engine);
}
/* Around every request of either dialect. False: it has to wait. */
bool mc_begin(struct session *session, bool writes);
enum cmd_result mc_end(struct session *session, enum cmd_result result);
/* The hit and miss counters of a fetch. */
void mc_count_get(struct session *session, bool is_touch, bool is_hit);
