/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reply.h - composing replies in the session's dialect, RESP2 or RESP3.
 *
 * Appends to session->out; out of memory or over the output limit: the session is marked to close, and
 * the rest is dropped. With CLIENT REPLY OFF nothing is appended. Texts are without "-" and CRLF.
 */
#pragma once
#include "backend/cmd/cmd.h"

void reply_raw(struct session *s, struct bytes bytes); /* complete RESP */
void reply_raw_value(struct session *s, const struct entry *string); /* its bytes alone; a long one without a copy */
void reply_ok(struct cmd *c);
void reply_status(struct cmd *c, const char *text);   /* +text */
void reply_error(struct cmd *c, const char *text);    /* "ERR ...": -text; CR and LF in it become blanks. Counts */
void reply_error_format(struct cmd *c, const char *format, ...) PRINTF_LIKE(2, 3);
void reply_integer(struct cmd *c, int64_t number);
void reply_bulk(struct cmd *c, struct bytes bytes);
void reply_bulk_value(struct cmd *c, const struct entry *string); /* not cold; a long one without a copy */
void reply_bulk_string(struct cmd *c, const char *string);
void reply_bulk_integer(struct cmd *c, int64_t number);
void reply_null(struct cmd *c);       /* $-1 | _ */
void reply_null_array(struct cmd *c); /* *-1 | _ */
void reply_array(struct cmd *c, uint64_t count);
void reply_map(struct cmd *c, uint64_t pairs);  /* RESP2: an array of 2 x pairs */
void reply_set(struct cmd *c, uint64_t count);  /* RESP2: an array */
void reply_push(struct cmd *c, uint64_t count); /* RESP2: an array */
void reply_bool(struct cmd *c, bool value);     /* RESP2: 1, 0 */
void reply_double(struct cmd *c, double value); /* RESP2: a bulk; %.17g, inf, -inf, nan, as Redis 7.0 */
void reply_human_double(struct cmd *c, long double value); /* a bulk: INCRBYFLOAT's form */
void reply_verbatim(struct cmd *c, const char *format, struct bytes text); /* "txt"; RESP2: a bulk */
void reply_bignum(struct cmd *c, struct bytes digits);
/* The same to a session that is not the command's own (pub/sub, blocked clients): */
void reply_session_push(struct session *s, uint64_t count);
void reply_session_bulk(struct session *s, struct bytes bytes);
void reply_session_integer(struct session *s, int64_t number);
void reply_session_null(struct session *s);

/* When the count is known only at the end. May nest up to 4 deep. */
void reply_count_later(struct cmd *c);
void reply_count_array(struct cmd *c, uint64_t count); /* ends the innermost: an array header goes in front */
void reply_count_map(struct cmd *c, uint64_t pairs);
void reply_count_set(struct cmd *c, uint64_t count);

/* Texts that many commands share. */
#define ERROR_WRONGTYPE "WRONGTYPE Operation against a key holding the wrong kind of value"
#define ERROR_SYNTAX    "ERR syntax error"
#define ERROR_INTEGER   "ERR value is not an integer or out of range"
#define ERROR_FLOAT     "ERR value is not a valid float"
#define ERROR_NO_KEY    "ERR no such key"
#define ERROR_KEY_LENGTH "ERR key is longer than 65535 bytes"
#define ERROR_INDEX     "ERR index out of range"
#define ERROR_RANGE     "ERR value is out of range"
#define ERROR_POSITIVE  "ERR value is out of range, must be positive"
#define ERROR_NAN       "ERR resulting score is not a number (NaN)"
#define ERROR_DISK_FULL "MISCONF No room is left on the disk for data. Commands that may modify the data set are " \
                        "disabled, but those that delete; service resumes when there is room."
#define ERROR_DISK_USED_UP \
    "MISCONF No room is left on the disk, nor of what is kept for commands that delete; nothing was changed, and " \
    "service resumes when there is room."
#define ERROR_DISK_FAILED                                                                          \
    "MISCONF A write or a flush of the log has failed. Commands that may modify the data set are " \
    "disabled until an operator acts. Please check the server's log for details about the error."
#define ERROR_VALUE_DAMAGED                                                                        \
    "CORRUPT The stored value of a key does not verify or cannot be read. The server's log names the " \
    "file and the place."
#define ERROR_MEMORY    "OOM command not allowed when used memory > 'maxmemory'."

/* Redis's number forms. */
#define FORMAT_DOUBLE_MAX 64
size_t format_double(double value, char out[FORMAT_DOUBLE_MAX]); /* %.17g, shortest integers, inf -inf nan */
#define FORMAT_HUMAN_DOUBLE_MAX (5 * 1024)
size_t format_human_double(long double value, char out[FORMAT_HUMAN_DOUBLE_MAX]); /* ld2string() with LD_STR_HUMAN */
/* As Redis's string2d() and string2ld(): whole string, no blanks; inf, -inf, +inf taken; false: not a number. */
bool parse_double(struct bytes text, double *out);
bool parse_long_double(struct bytes text, long double *out);
