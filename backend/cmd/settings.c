/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings: a text for each row of settings.def, in Redis's canonical form, and beside it the number or word that
 * the program heeds, set from the text.
 *
 *   G1  CONFIG SET of several settings sets all or none.
 *   G2  What CONFIG GET shows is what holds.
 */
#include "backend/cmd/settings.h"

#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/help.h"
#include "backend/cmd/latency.h"
#include "backend/types/limits.h"
#include "common/base/glob.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

enum setting_kind { KIND_BOOL, KIND_NUMBER, KIND_MEMORY, KIND_STRING, KIND_ENUM, KIND_LIMITS, KIND_NOTIFY };
#define FIXED   1u
#define KEPT    2u
#define SECRET  4u
#define PERCENT 8u

enum setting_id {
#define SETTING(id, ...) SETTING_##id,
#include "backend/cmd/settings.def"
#undef SETTING
    SETTING_COUNT
};

struct setting {
    const char *name, *alias;
    int64_t least;
    uint64_t most;
    const char *words, *text;
    uint8_t kind, flags;
};

static const struct setting settings_table[SETTING_COUNT] = {
#define SETTING(id, name, alias, kind, flags, least, most, words, text)                            \
    [SETTING_##id] = {name, alias, least, most, words, text, KIND_##kind, flags},
#include "backend/cmd/settings.def"
#undef SETTING
};

struct settings_text {
    char *values[SETTING_COUNT]; /* own */
};

#define SET_MAX 64 /* pairs of one CONFIG SET */
#define WHY_MAX 256
#define HZ_MIN  1
#define HZ_MAX  500
#define TITLE_WRONG "template format is invalid or contains unknown variables"

/* ---- from the client's words to the canonical text: NULL, or why not ------------------------- */

static const char *canonical_bool(struct bytes value, struct buffer *out)
{
    bool is_yes = bytes_equal_nocase(value, BYTES("yes"));

    if (!is_yes && !bytes_equal_nocase(value, BYTES("no")))
        return "argument must be 'yes' or 'no'";
    buffer_append_string(out, is_yes ? "yes" : "no");
    return NULL;
}

static const char *range_error(const struct setting *setting, char why[WHY_MAX])
{
    snprintf(why, WHY_MAX, "argument must be between %lld and %llu inclusive", (long long)setting->least,
             (unsigned long long)setting->most);
    return why;
}

static const char *canonical_number(const struct setting *setting, struct bytes value, struct buffer *out,
                                    char why[WHY_MAX])
{
    int64_t number;

    if (!bytes_to_i64(value, &number))
        return "argument couldn't be parsed into an integer";
    if (number < setting->least || (number > 0 && (uint64_t)number > setting->most))
        return range_error(setting, why);
    buffer_append_format(out, "%lld", (long long)number);
    return NULL;
}

/* "1gb" and the like: k is a thousand, kb is 1024. What is more than 64 bits is as much as they
 * hold, and no digits are 0, as in Redis. */
static bool memory_parse(struct bytes value, uint64_t *out)
{
    static const struct {
        const char *unit;
        uint64_t bytes;
    } units[] = {{"", 1},         {"b", 1},        {"k", 1000},          {"kb", 1024},
                 {"m", 1000000},  {"mb", 1u << 20}, {"g", 1000000000}, {"gb", 1u << 30}};
    size_t len = 0;
    uint64_t number = 0;

    while (len < value.len && value.data[len] >= '0' && value.data[len] <= '9') {
        unsigned digit = (unsigned)(value.data[len++] - '0');

        number = number > (UINT64_MAX - digit) / 10 ? UINT64_MAX : number * 10 + digit;
    }
    for (size_t i = 0; i < ARRAY_COUNT(units); i++)
        if (bytes_equal_nocase(bytes_skip(value, len), bytes_of_string(units[i].unit))) {
            *out = number > UINT64_MAX / units[i].bytes ? UINT64_MAX : number * units[i].bytes;
            return true;
        }
    return false;
}

static const char *canonical_memory(const struct setting *setting, struct bytes value, struct buffer *out,
                                    char why[WHY_MAX])
{
    uint64_t number;
    int64_t percent;

    if (setting->flags & PERCENT && value.len > 0 && value.data[value.len - 1] == '%' &&
        bytes_to_i64(bytes_first(value, value.len - 1), &percent) && percent >= 0) {
        if (percent > 100)
            return "percentage argument must be less or equal to 100";
        buffer_append_format(out, "%lld", (long long)percent);
        buffer_append_string(out, percent == 0 ? "" : "%");
        return NULL;
    }
    if (!memory_parse(value, &number))
        return setting->flags & PERCENT ? "argument must be a memory or percent value" : "argument must be a memory value";
    if (setting->flags & PERCENT && number > INT64_MAX) { /* Redis keeps percents as negative numbers, and takes it for one */
        if (number < (uint64_t)-100)
            return "percentage argument must be less or equal to 100";
        buffer_append_format(out, "%llu%%", (unsigned long long)-number);
        return NULL;
    }
    if (number < (uint64_t)setting->least || number > setting->most)
        return range_error(setting, why);
    buffer_append_format(out, "%llu", (unsigned long long)number);
    return NULL;
}

/* The next of the words, which a comma and a blank part. */
static bool word_next(struct bytes *words, struct bytes *word)
{
    const char *comma;

    if (words->len == 0)
        return false;
    comma = memchr(words->data, ',', words->len);
    *word = bytes_first(*words, comma == NULL ? words->len : (size_t)(comma - words->data));
    *words = bytes_skip(*words, word->len + 2);
    return true;
}

static const char *canonical_enum(const struct setting *setting, struct bytes value, struct buffer *out,
                                  char why[WHY_MAX])
{
    struct bytes words = bytes_of_string(setting->words), word;

    while (word_next(&words, &word))
        if (bytes_equal_nocase(word, value)) {
            buffer_append(out, word.data, word.len);
            return NULL;
        }
    snprintf(why, WHY_MAX, "argument(s) must be one of the following: %s", setting->words);
    return why;
}

static const struct {
    char letter;
    uint32_t flag;
} notify_letters[] = {{'g', NOTIFY_GENERIC}, {'$', NOTIFY_STRING}, {'l', NOTIFY_LIST},
                      {'s', NOTIFY_SET},     {'h', NOTIFY_HASH},   {'z', NOTIFY_ZSET},
                      {'x', NOTIFY_EXPIRED}, {'e', NOTIFY_EVICTED}, {'t', NOTIFY_STREAM},
                      {'d', NOTIFY_MODULE},  {'n', NOTIFY_NEW},    {'K', NOTIFY_KEYSPACE},
                      {'E', NOTIFY_KEYEVENT}, {'m', NOTIFY_KEY_MISS}};
#define NOTIFY_CLASSES 11 /* of them: what A stands for, and n */

static bool notify_parse(struct bytes value, uint32_t *out)
{
    uint32_t flags = 0;

    for (size_t i = 0; i < value.len; i++) {
        uint32_t flag = value.data[i] == 'A' ? NOTIFY_ALL : 0;

        for (size_t j = 0; j < ARRAY_COUNT(notify_letters); j++)
            if (notify_letters[j].letter == value.data[i])
                flag = notify_letters[j].flag;
        if (flag == 0)
            return false;
        flags |= flag;
    }
    *out = flags;
    return true;
}

static const char *canonical_notify(struct bytes value, struct buffer *out)
{
    uint32_t flags;
    bool has_all;

    if (!notify_parse(value, &flags))
        return "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
    has_all = (flags & NOTIFY_ALL) == NOTIFY_ALL;
    if (has_all)
        buffer_append_string(out, "A");
    for (size_t j = has_all ? NOTIFY_CLASSES : 0; j < ARRAY_COUNT(notify_letters); j++)
        if (flags & notify_letters[j].flag)
            buffer_append(out, &notify_letters[j].letter, 1);
    return NULL;
}

/* ---- output limits: "normal 0 0 0 slave ..." ------------------------------------------------- */

static bool blank_word_next(struct bytes *line, struct bytes *word)
{
    const char *blank;

    while (line->len > 0 && line->data[0] == ' ')
        *line = bytes_skip(*line, 1);
    if (line->len == 0)
        return false;
    blank = memchr(line->data, ' ', line->len);
    *word = bytes_first(*line, blank == NULL ? line->len : (size_t)(blank - line->data));
    *line = bytes_skip(*line, word->len);
    return true;
}

static bool limit_class(struct bytes word, enum output_limit_class *class)
{
    if (bytes_equal_nocase(word, BYTES("normal")))
        *class = OUTPUT_LIMIT_NORMAL;
    else if (bytes_equal_nocase(word, BYTES("slave")) || bytes_equal_nocase(word, BYTES("replica")))
        *class = OUTPUT_LIMIT_REPLICA;
    else if (bytes_equal_nocase(word, BYTES("pubsub")))
        *class = OUTPUT_LIMIT_PUBSUB;
    else
        return false;
    return true;
}

/* Changes those of `limits` that the text names. NULL, or why not. */
static const char *limits_parse(struct bytes text, struct output_limit limits[OUTPUT_LIMIT_COUNT])
{
    struct bytes rest = text, word;
    size_t count = 0;

    while (blank_word_next(&rest, &word))
        count++;
    if (count % 4 != 0)
        return "Wrong number of arguments in buffer limit configuration.";
    while (blank_word_next(&text, &word)) {
        struct bytes hard = BYTES_EMPTY, soft = BYTES_EMPTY, seconds = BYTES_EMPTY;
        enum output_limit_class class;
        struct output_limit limit;

        if (!limit_class(word, &class))
            return "Invalid client class specified in buffer limit configuration.";
        blank_word_next(&text, &hard);
        blank_word_next(&text, &soft);
        blank_word_next(&text, &seconds);
        if (!memory_parse(hard, &limit.hard) || !memory_parse(soft, &limit.soft) ||
            !bytes_to_u64(seconds, INT64_MAX, &limit.soft_seconds))
            return "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
        limits[class] = limit;
    }
    return NULL;
}

static const char *canonical_limits(const struct settings *settings, struct bytes value, struct buffer *out)
{
    static const char *const names[OUTPUT_LIMIT_COUNT] = {"normal", "slave", "pubsub"};
    struct output_limit limits[OUTPUT_LIMIT_COUNT];
    const char *why;

    memcpy(limits, settings->output_limits, sizeof(limits));
    why = limits_parse(value, limits);
    if (why != NULL)
        return why;
    for (size_t i = 0; i < OUTPUT_LIMIT_COUNT; i++)
        buffer_append_format(out, "%s%s %llu %llu %llu", i == 0 ? "" : " ", names[i],
                             (unsigned long long)limits[i].hard, (unsigned long long)limits[i].soft,
                             (unsigned long long)limits[i].soft_seconds);
    return NULL;
}

/* "900 1 300 10": seconds and changes. Nothing heeds it, but tools parse it. */
static const char *canonical_save(struct bytes value, struct buffer *out)
{
    struct bytes rest = value, word;
    size_t count = 0;
    int64_t number;

    while (blank_word_next(&rest, &word)) {
        if (!bytes_to_i64(word, &number) || number < (int64_t)(count % 2 == 0))
            return "Invalid save parameters";
        count++;
        buffer_append_format(out, "%s%lld", out->len == 0 ? "" : " ", (long long)number);
    }
    return count % 2 != 0 ? "Invalid save parameters" : NULL;
}

/* ---- texts with a form, heeded by nobody ------------------------------------------------------ */

/* "%f" without what says nothing, as Redis gives it back. */
static const char *canonical_percentiles(struct bytes value, struct buffer *out)
{
    struct bytes word;
    char text[32];
    double percentile;

    while (blank_word_next(&value, &word)) {
        size_t len;

        if (!parse_double(word, &percentile))
            return "Invalid latency-tracking-info-percentiles parameters";
        if (percentile < 0 || percentile > 100)
            return "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]";
        len = (size_t)snprintf(text, sizeof(text), "%f", percentile);
        while (text[len - 1] == '0')
            len--;
        len -= text[len - 1] == '.';
        buffer_append_string(out, out->len == 0 ? "" : " ");
        buffer_append(out, text, len);
    }
    return NULL;
}

static const char *canonical_oom_values(struct bytes value, struct buffer *out)
{
    struct bytes rest = value, word;
    size_t count = 0;
    int64_t number;

    while (blank_word_next(&rest, &word))
        count++;
    if (count != 3)
        return "wrong number of arguments";
    while (blank_word_next(&value, &word)) {
        if (!bytes_to_i64(word, &number) || number < -2000 || number > 2000)
            return "Invalid oom-score-adj-values, elements must be between -2000 and 2000.";
        buffer_append_format(out, "%s%lld", out->len == 0 ? "" : " ", (long long)number);
    }
    return NULL;
}

/* The first of the setting's words says that none of the others holds. */
static const char *canonical_flags(const struct setting *setting, struct bytes value, struct buffer *out,
                                   char why[WHY_MAX])
{
    struct bytes given, words = bytes_of_string(setting->words), word;
    uint32_t flags = 0, flag;

    if (value.len == 0)
        return canonical_enum(setting, value, out, why);
    while (blank_word_next(&value, &given)) {
        words = bytes_of_string(setting->words);
        for (flag = 1; word_next(&words, &word) && !bytes_equal_nocase(word, given);)
            flag <<= 1;
        if (flag >> setting->most != 0)
            return canonical_enum(setting, given, out, why);
        flags |= flag;
    }
    words = bytes_of_string(setting->words);
    for (flag = 1; word_next(&words, &word); flag <<= 1)
        if (flag != 1 ? (flags & flag) != 0 : flags <= 1) {
            buffer_append_string(out, out->len == 0 ? "" : " ");
            buffer_append(out, word.data, word.len);
        }
    return NULL;
}

static const char *canonical_shutdown(const struct setting *setting, struct bytes value, struct buffer *out,
                                      char why[WHY_MAX])
{
    const char *error = canonical_flags(setting, value, out, why);

    /* Their order is the words'. */
    if (error == NULL && bytes_equal(bytes_first(buffer_bytes(out), MIN(out->len, 11u)), BYTES("save nosave")))
        return "shutdown options SAVE and NOSAVE can't be used simultaneously";
    return error;
}

static bool is_title_variable(struct bytes name)
{
    struct bytes names = BYTES("title, listen-addr, server-mode, port, tls-port, config-file, unixsocket"), word;

    while (word_next(&names, &word))
        if (bytes_equal(word, name))
            return true;
    return false;
}

/* "{{" is a brace. What comes to nothing is refused, too. */
static const char *canonical_title(struct bytes value, struct buffer *out)
{
    struct bytes rest = value;
    bool is_empty = true;

    while (rest.len > 0) {
        const char *end;

        is_empty = is_empty && rest.data[0] == ' ';
        if (rest.data[0] != '{' || (rest.len > 1 && rest.data[1] == '{')) {
            rest = bytes_skip(rest, rest.data[0] == '{' ? 2 : 1);
            continue;
        }
        end = memchr(rest.data, '}', rest.len);
        if (end == NULL || !is_title_variable(bytes_of(rest.data + 1, (size_t)(end - rest.data) - 1)))
            return TITLE_WRONG;
        rest = bytes_skip(rest, (size_t)(end - rest.data) + 1);
    }
    if (is_empty)
        return TITLE_WRONG;
    buffer_append(out, value.data, value.len);
    return NULL;
}

/* What is out of its reach Redis brings into it. */
static const char *canonical_hz(const struct setting *setting, struct bytes value, struct buffer *out,
                                char why[WHY_MAX])
{
    const char *error = canonical_number(setting, value, out, why);
    int64_t hz;

    if (error == NULL && bytes_to_i64(value, &hz) && (hz < HZ_MIN || hz > HZ_MAX)) {
        buffer_clear(out);
        buffer_append_format(out, "%d", hz < HZ_MIN ? HZ_MIN : HZ_MAX);
    }
    return error;
}

/* What this server cannot do, said where Redis would just do it. */
static const char *refusal(const struct settings *settings, enum setting_id id, struct bytes text)
{
    switch ((int)id) {
    case SETTING_appendonly:
        return bytes_equal(text, BYTES("yes")) ? NULL : "the log is the database: it cannot be switched off";
    case SETTING_maxmemory_policy:
        if (bytes_equal(text, bytes_of_string(settings->texts->values[id])))
            return NULL;
        return "which databases are caches is set where the node is started";
    case SETTING_requirepass:
        return text.len > 0 || !settings->needs_password
                   ? NULL
                   : "others reach this port: without a password only with insecure: true in the configuration";
    case SETTING_activedefrag:
        return bytes_equal(text, BYTES("no"))
                   ? NULL
                   : "Active defragmentation cannot be enabled: it requires a Redis server compiled with a "
                     "modified Jemalloc like the one shipped by default with the Redis source distribution";
    default: return NULL;
    }
}

static const char *canonical(const struct settings *settings, enum setting_id id, struct bytes value,
                             struct buffer *out, char why[WHY_MAX])
{
    const struct setting *setting = &settings_table[id];

    switch ((int)id) {
    case SETTING_save: return canonical_save(value, out);
    case SETTING_hz: return canonical_hz(setting, value, out, why);
    case SETTING_latency_tracking_info_percentiles: return canonical_percentiles(value, out);
    case SETTING_oom_score_adj_values: return canonical_oom_values(value, out);
    case SETTING_proc_title_template: return canonical_title(value, out);
    case SETTING_shutdown_on_sigint:
    case SETTING_shutdown_on_sigterm: return canonical_shutdown(setting, value, out, why);
    default: break;
    }
    switch ((enum setting_kind)setting->kind) {
    case KIND_BOOL: return canonical_bool(value, out);
    case KIND_NUMBER: return canonical_number(setting, value, out, why);
    case KIND_MEMORY: return canonical_memory(setting, value, out, why);
    case KIND_ENUM: return canonical_enum(setting, value, out, why);
    case KIND_LIMITS: return canonical_limits(settings, value, out);
    case KIND_NOTIFY: return canonical_notify(value, out);
    case KIND_STRING: buffer_append(out, value.data, value.len); return NULL;
    }
    UNREACHABLE("no such kind");
}

/* ---- what holds ------------------------------------------------------------------------------ */

/* A canonical text of a number. */
static uint64_t u64_of(const char *text)
{
    return strtoull(text, NULL, 10);
}

static uint32_t limit_of(const char *text, uint32_t bound)
{
    return (uint32_t)MIN(u64_of(text), (uint64_t)bound);
}

static uint8_t fsync_of(const char *text)
{
    return strcmp(text, "always") == 0 ? STORE_FSYNC_ALWAYS
           : strcmp(text, "no") == 0   ? STORE_FSYNC_NO
                                       : STORE_FSYNC_EVERYSEC;
}

/* From where on Redis's word holds, and the least level that it is the word for. */
static const struct level {
    const char *word;
    int level;
} levels[] = {{"debug", LOG_DEBUG}, {"verbose", LOG_INFO}, {"notice", LOG_NOTICE}, {"warning", LOG_WARN}};

static int level_of(const char *word)
{
    for (size_t i = 0; i < ARRAY_COUNT(levels); i++)
        if (strcmp(levels[i].word, word) == 0)
            return levels[i].level;
    UNREACHABLE("no such word");
}

static const char *level_word(int level)
{
    for (size_t i = 0; i < ARRAY_COUNT(levels); i++)
        if (level >= levels[i].level)
            return levels[i].word;
    return levels[ARRAY_COUNT(levels) - 1].word;
}

static void password_apply(struct settings *settings, const char *text)
{
    mem_free(settings->password);
    settings->password = text[0] != '\0' ? must_strdup(text) : NULL;
}

static void apply(struct settings *settings, enum setting_id id)
{
    const char *text = settings->texts->values[id];

    switch ((int)id) {
    case SETTING_requirepass: password_apply(settings, text); break;
    case SETTING_loglevel: settings->log_level = level_of(text); break;
    case SETTING_maxmemory_clients:
        settings->clients_memory = u64_of(text);
        settings->clients_memory_is_percent = strchr(text, '%') != NULL;
        break;
    case SETTING_maxmemory: settings->memory_max = u64_of(text); break;
    case SETTING_maxdisk: settings->disk_max = u64_of(text); break;
    case SETTING_appendfsync: settings->fsync = fsync_of(text); break;
    case SETTING_maxclients: settings->clients_max = (uint32_t)u64_of(text); break;
    case SETTING_timeout: settings->timeout_s = (uint32_t)u64_of(text); break;
    case SETTING_tcp_keepalive: settings->tcp_keepalive_s = (uint32_t)u64_of(text); break;
    case SETTING_proto_max_bulk_len: settings->bulk_max = u64_of(text); break;
    case SETTING_client_query_buffer_limit: settings->query_buffer_max = u64_of(text); break;
    case SETTING_slowlog_log_slower_than:
        settings->slow_log_slower_than_us = strtoll(text, NULL, 10);
        break;
    case SETTING_slowlog_max_len:
        settings->slow_log_len_max = (uint32_t)MIN(u64_of(text), (uint64_t)UINT32_MAX);
        break;
    case SETTING_latency_monitor_threshold:
        settings->latency_threshold_ms = (uint32_t)MIN(u64_of(text), (uint64_t)UINT32_MAX);
        break;
    case SETTING_min_replicas_to_write: settings->replicas_min = (uint32_t)u64_of(text); break;
    case SETTING_min_replicas_max_lag: settings->replicas_lag_max_s = (uint32_t)u64_of(text); break;
    case SETTING_latency_tracking: settings->latency_tracking = text[0] == 'y'; break;
    case SETTING_memcache_item_size_max: settings->mc_value_max = (uint32_t)u64_of(text); break;
    case SETTING_hash_max_listpack_entries: settings->limits.hash_fields = limit_of(text, PACKED_COUNT_BOUND); break;
    case SETTING_hash_max_listpack_value: settings->limits.hash_size = limit_of(text, PACKED_SIZE_BOUND); break;
    case SETTING_set_max_intset_entries: settings->limits.set_ints = limit_of(text, INTS_COUNT_BOUND); break;
    case SETTING_zset_max_listpack_entries: settings->limits.zset_members = limit_of(text, PACKED_COUNT_BOUND); break;
    case SETTING_zset_max_listpack_value: settings->limits.zset_size = limit_of(text, PACKED_SIZE_BOUND); break;
    case SETTING_maxmemory_policy: settings->evicts = strcmp(text, "noeviction") != 0; break;
    case SETTING_notify_keyspace_events:
        MAYBE(notify_parse(bytes_of_string(text), &settings->notify));
        break;
    case SETTING_client_output_buffer_limit:
        MAYBE(limits_parse(bytes_of_string(text), settings->output_limits));
        break;
    default: break;
    }
}

static void text_set(struct settings *settings, enum setting_id id, char *text)
{
    mem_free(settings->texts->values[id]);
    settings->texts->values[id] = text;
    apply(settings, id);
}

/* What others keep a copy of. */
static void tell(struct engine *engine, const struct settings *before)
{
    if (before->memory_max != engine->settings->memory_max)
        store_memory_max_set(engine->store, engine->settings->memory_max);
    if (before->disk_max != engine->settings->disk_max)
        store_disk_max_set(engine->store, engine->settings->disk_max);
    if (before->fsync != engine->settings->fsync)
        store_fsync_set(engine->store, engine->settings->fsync);
    store_limits_set(engine->store, &engine->settings->limits);
}

static void number_set(struct settings *settings, enum setting_id id, uint64_t number)
{
    char digits[21];

    text_set(settings, id, must_strndup(digits, u64_to_digits(number, digits)));
}

int settings_create(const struct engine_options *options, struct settings **out)
{
    static const char *const fsyncs[] = {
        [STORE_FSYNC_NO] = "no", [STORE_FSYNC_EVERYSEC] = "everysec", [STORE_FSYNC_ALWAYS] = "always"};
    struct settings *settings = mem_zalloc(sizeof(*settings));

    if (settings == NULL)
        return ERR_FULL;
    settings->texts = must_zalloc(sizeof(*settings->texts));
    settings->active_expire = true;
    settings->needs_password = options->needs_password;
    for (enum setting_id id = 0; id < SETTING_COUNT; id++)
        text_set(settings, id, must_strdup(settings_table[id].text));
    number_set(settings, SETTING_maxmemory, options->memory_max);
    number_set(settings, SETTING_maxmemory_clients, options->clients_memory);
    number_set(settings, SETTING_maxdisk, options->disk_max);
    number_set(settings, SETTING_port, options->port);
    if (options->clients_max > 0)
        number_set(settings, SETTING_maxclients, options->clients_max);
    text_set(settings, SETTING_appendfsync, must_strdup(fsyncs[options->fsync]));
    if (options->is_cache)
        text_set(settings, SETTING_maxmemory_policy, must_strdup("allkeys-lfu"));
    if (options->password != NULL)
        text_set(settings, SETTING_requirepass, must_strdup(options->password));
    if (options->log != NULL)
        text_set(settings, SETTING_loglevel, must_strdup(level_word(log_level(options->log))));
    if (options->dir != NULL)
        text_set(settings, SETTING_dir, must_strdup(options->dir));
    *out = settings;
    return 0;
}

void settings_destroy(struct settings **settings)
{
    struct settings *s = *settings;

    if (s == NULL)
        return;
    for (enum setting_id id = 0; id < SETTING_COUNT; id++)
        mem_free(s->texts->values[id]);
    mem_free(s->texts);
    mem_free(s->password);
    mem_free(s);
    *settings = NULL;
}

struct settings *settings_copy(const struct settings *settings)
{
    struct settings *copy = must_zalloc(sizeof(*copy));

    copy->texts = must_zalloc(sizeof(*copy->texts));
    copy->active_expire = settings->active_expire;
    copy->needs_password = settings->needs_password;
    for (enum setting_id id = 0; id < SETTING_COUNT; id++)
        text_set(copy, id, must_strdup(settings->texts->values[id]));
    return copy;
}

void settings_replace(struct engine *engine, struct settings **settings)
{
    struct settings *before = engine->settings;

    if (*settings == NULL)
        return;
    engine->settings = *settings;
    *settings = NULL;
    tell(engine, before);
    settings_destroy(&before);
}

bool settings_password_fits(const struct settings *settings, struct bytes password)
{
    size_t len = settings->password != NULL ? strlen(settings->password) : 0;
    unsigned char differs = (unsigned char)(password.len != len);

    if (settings->password == NULL)
        return false;
    /* The time depends on the client's word alone. */
    for (size_t i = 0; i < password.len; i++)
        differs |= (unsigned char)(password.data[i] ^ settings->password[len == 0 ? 0 : i % len]);
    return differs == 0;
}

/* ---- CONFIG ---------------------------------------------------------------------------------- */

/* SETTING_COUNT: no such name. *spelled: the name or the alias. */
static enum setting_id setting_find(struct bytes name, const char **spelled)
{
    for (enum setting_id id = 0; id < SETTING_COUNT; id++) {
        const struct setting *setting = &settings_table[id];

        *spelled = setting->name;
        if (bytes_equal_nocase(name, bytes_of_string(setting->name)))
            return id;
        *spelled = setting->alias;
        if (setting->alias != NULL && bytes_equal_nocase(name, bytes_of_string(setting->alias)))
            return id;
    }
    return SETTING_COUNT;
}

bool setting_is_secret(struct bytes name)
{
    const char *spelled;
    enum setting_id id = setting_find(name, &spelled);

    return id != SETTING_COUNT && (settings_table[id].flags & SECRET) != 0;
}

void settings_take(struct engine *engine, struct bytes name, struct bytes text)
{
    struct settings before = *engine->settings;
    const char *spelled;
    enum setting_id id = setting_find(name, &spelled);

    if (id == SETTING_COUNT)
        return;
    text_set(engine->settings, id, must_strndup(text.data, text.len));
    tell(engine, &before);
}

static bool has_wildcard(struct bytes pattern)
{
    for (size_t i = 0; i < pattern.len; i++)
        if (pattern.data[i] == '*' || pattern.data[i] == '?' || pattern.data[i] == '[')
            return true;
    return false;
}

/* Shows a name once, however many patterns find it: bit 0 the name, bit 1 the alias. */
static uint64_t get_one(struct cmd *c, enum setting_id id, struct bytes pattern, uint8_t *shown)
{
    const char *names[2] = {settings_table[id].name, settings_table[id].alias};
    uint64_t count = 0;

    for (unsigned i = 0; i < 2 && names[i] != NULL; i++) {
        if ((*shown >> i & 1) != 0 || !glob_matches(pattern, bytes_of_string(names[i]), true))
            continue;
        *shown |= (uint8_t)(1u << i);
        reply_bulk_string(c, names[i]);
        reply_bulk_string(c, c->engine->settings->texts->values[id]);
        count++;
    }
    return count;
}

/* The name is shown as it was asked. */
static uint64_t get_exact(struct cmd *c, struct bytes name, uint8_t shown[SETTING_COUNT])
{
    const char *spelled;
    enum setting_id id = setting_find(name, &spelled);
    uint8_t bit;

    if (id == SETTING_COUNT)
        return 0;
    bit = spelled == settings_table[id].name ? 1 : 2;
    if (shown[id] & bit)
        return 0;
    shown[id] |= bit;
    reply_bulk(c, name);
    reply_bulk_string(c, c->engine->settings->texts->values[id]);
    return 1;
}

void cmd_config_get(struct cmd *c)
{
    uint8_t shown[SETTING_COUNT] = {0};
    uint64_t count = 0;

    reply_count_later(c);
    for (uint32_t i = 2; i < c->argc; i++) {
        if (has_wildcard(c->argv[i])) {
            for (enum setting_id id = 0; id < SETTING_COUNT; id++)
                count += get_one(c, id, c->argv[i], &shown[id]);
        } else {
            count += get_exact(c, c->argv[i], shown);
        }
    }
    reply_count_map(c, count);
}

struct change {
    enum setting_id id;
    struct buffer text;
    struct bytes name;   /* as the client wrote it */
    const char *spelled; /* as the table has it */
};

static void set_failed(struct cmd *c, struct bytes name, const char *why)
{
    reply_error_format(c, "ERR CONFIG SET failed (possibly related to argument '%.*s') - %s", BYTES_ARG(name), why);
}

static const char *name_error(const struct change *changes, uint32_t i)
{
    if (settings_table[changes[i].id].flags & FIXED)
        return changes[i].id == SETTING_dir || changes[i].id == SETTING_dbfilename
                   ? "can't set protected config"
                   : "can't set immutable config";
    for (uint32_t j = 0; j < i; j++)
        if (changes[j].spelled == changes[i].spelled)
            return "duplicate parameter";
    return NULL;
}

/* All of the names, before any value is looked at; the first that is wrong is told. */
static bool names_check(struct cmd *c, struct change *changes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const char *error;

        changes[i].name = c->argv[2 + i * 2];
        changes[i].id = setting_find(changes[i].name, &changes[i].spelled);
        if (changes[i].id == SETTING_COUNT) {
            reply_error_format(c, "ERR Unknown option or number of arguments for CONFIG SET - '%.*s'",
                               BYTES_ARG(changes[i].name));
            return false;
        }
        error = name_error(changes, i);
        if (error != NULL) {
            set_failed(c, changes[i].name, error);
            return false;
        }
    }
    return true;
}

static bool values_check(struct cmd *c, struct change *changes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct change *change = &changes[i];
        char buffer[WHY_MAX];
        const char *why = canonical(c->engine->settings, change->id, c->argv[3 + i * 2], &change->text, buffer);

        if (why == NULL)
            why = refusal(c->engine->settings, change->id, buffer_bytes(&change->text));
        if (why == NULL && memchr(c->argv[3 + i * 2].data, '\0', c->argv[3 + i * 2].len) != NULL)
            why = "no byte of a value may be zero";
        if (why != NULL) {
            set_failed(c, bytes_of_string(change->spelled), why);
            return false;
        }
        buffer_append(&change->text, "", 1);
        if (change->text.failed) {
            cmd_out_of_memory(c);
            return false;
        }
    }
    return true;
}

void cmd_config_set(struct cmd *c)
{
    struct change changes[SET_MAX] = {0};
    uint32_t count = (c->argc - 2) / 2;
    struct settings before = *c->engine->settings;

    if (c->argc % 2 != 0 || count > SET_MAX) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if (names_check(c, changes, count) && values_check(c, changes, count)) {
        for (uint32_t i = 0; i < count; i++) {
            text_set(c->engine->settings, changes[i].id,
                     must_strndup(changes[i].text.data, changes[i].text.len - 1));
            if (changes[i].id == SETTING_loglevel && c->engine->log != NULL)
                log_set_level(c->engine->log, c->engine->settings->log_level);
        }
        tell(c->engine, &before);
        reply_ok(c);
    }
    for (uint32_t i = 0; i < count; i++)
        buffer_deinit(&changes[i].text);
}

void cmd_config_resetstat(struct cmd *c)
{
    struct engine *engine = c->engine;

    memset(&engine->counters, 0, sizeof(engine->counters));
    memset(engine->error_stats, 0, sizeof(engine->error_stats));
    store_stats_get(engine->store, &engine->stats_base);
    latency_histograms_reset(engine->latency);
    reply_ok(c);
}

/* The file is the operator's, with comments and pools in it; a value set here lasts until the file is read again. */
void cmd_config_rewrite(struct cmd *c)
{
    if (c->engine->options.config_file == NULL)
        reply_error(c, "ERR The server is running without a config file");
    else
        reply_error(c, "ERR Rewriting config file: this server does not write to its configuration file");
}

void cmd_config_help(struct cmd *c)
{
    static const char *const lines[] = {
        "GET <pattern>",
        "    Return parameters matching the glob-like <pattern> and their values.",
        "SET <directive> <value>",
        "    Set the configuration <directive> to <value>.",
        "RESETSTAT",
        "    Reset statistics reported by the INFO command.",
        "REWRITE",
        "    Rewrite the configuration file.",
    };

    reply_help(c, "CONFIG", lines, ARRAY_COUNT(lines));
}
