/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "common/conf/reader.h"

#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

/* ---- memory -------------------------------------------------------------------------------------- */

#define BLOCK_SIZE 16384

struct conf_block {
    struct conf_block *next;
    size_t size, used;
    _Alignas(max_align_t) char data[];
};

void *conf_alloc(struct conf_arena *arena, size_t size)
{
    const size_t align = _Alignof(max_align_t);
    struct conf_block *block = arena->blocks;
    void *place;

    size = (size + align - 1) / align * align;
    if (block == NULL || block->size - block->used < size) {
        size_t block_size = MAX(size, (size_t)BLOCK_SIZE);

        block = must_zalloc(sizeof(*block) + block_size);
        block->size = block_size;
        block->next = arena->blocks;
        arena->blocks = block;
    }
    place = block->data + block->used;
    block->used += size;
    return place;
}

const char *conf_copy(struct conf_arena *arena, struct bytes text)
{
    char *copy = conf_alloc(arena, text.len + 1);

    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    return copy;
}

void conf_arena_wipe(struct conf_arena *arena)
{
    while (arena->blocks != NULL) {
        struct conf_block *block = arena->blocks;

        arena->blocks = block->next;
        explicit_bzero(block->data, block->used);
        mem_free(block);
    }
}

/* ---- errors -------------------------------------------------------------------------------------- */

/* "path:line:column: text", one line whatever the file holds. */
static void compose(char *out, size_t cap, const char *path, struct conf_position at,
                    const char *format, va_list args)
{
    int used = at.line > 0 ? snprintf(out, cap, "%.200s:%u:%u: ", path, at.line, at.column)
                           : snprintf(out, cap, "%.200s: ", path);

    vsnprintf(out + used, cap - (size_t)used, format, args);
    for (char *p = out; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    }
}

int conf_fail(struct conf_reader *reader, struct conf_position at, const char *format, ...)
{
    va_list args;

    if (reader->has_failed)
        return ERR_INVALID;
    reader->has_failed = true;
    reader->error->at = at;
    va_start(args, format);
    compose(reader->error->text, sizeof(reader->error->text), reader->path, at, format, args);
    va_end(args);
    return ERR_INVALID;
}

void conf_warn(struct conf_reader *reader, struct conf_position at, const char *format, ...)
{
    char text[sizeof(reader->error->text)];
    va_list args;

    if (reader->warnings_count == CONF_WARNINGS_MAX)
        return;
    if (reader->warnings == NULL)
        reader->warnings = conf_alloc(reader->arena, CONF_WARNINGS_MAX * sizeof(*reader->warnings));
    va_start(args, format);
    compose(text, sizeof(text), reader->path, at, format, args);
    va_end(args);
    reader->warnings[reader->warnings_count++].text =
        conf_copy(reader->arena, bytes_of_string(text));
}

void conf_node_add(struct conf_reader *reader, struct conf_node *mapping, struct bytes key, struct bytes value,
                   struct conf_position at)
{
    struct conf_node *nodes = conf_alloc(&reader->scratch, 2 * sizeof(*nodes));
    struct conf_node **tail = &mapping->first;

    nodes[0] = (struct conf_node){.kind = CONF_NODE_SCALAR, .at = at, .value = &nodes[1]};
    nodes[0].text = bytes_of(conf_copy(&reader->scratch, key), key.len);
    nodes[1] = (struct conf_node){.kind = CONF_NODE_SCALAR, .at = at};
    nodes[1].text = bytes_of(conf_copy(&reader->scratch, value), value.len);
    while (*tail != NULL)
        tail = &(*tail)->next;
    *tail = nodes;
    mapping->count++;
}

/* ---- the file ------------------------------------------------------------------------------------ */

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static int fail_of_file(const char *path, struct conf_error *error, int err)
{
    struct conf_reader reader = {.path = path, .error = error};

    *error = (struct conf_error){.text = ""};
    conf_fail(&reader, (struct conf_position){0, 0},
              "conf: failed to open configuration '%s': %s; name a readable file with -c", path,
              err == -ESTALE ? "it changed while it was read" : err_text(err));
    return err;
}

/* Reads the whole file, one byte more than allowed at most. */
static int read_file(FILE *file, char **data, size_t *len, mode_t *mode)
{
    const size_t cap = CONF_FILE_SIZE_MAX + 1;
    struct stat before, after;
    int err = 0;

    *data = must_alloc(cap);
    *len = 0;
    if (fstat(fileno(file), &before) != 0)
        return -errno;
    if (S_ISDIR(before.st_mode))
        return -EISDIR;
    *len = fread(*data, 1, cap, file);
    if (ferror(file))
        err = errno != 0 ? -errno : -EIO;
    else if (fstat(fileno(file), &after) != 0)
        err = -errno;
    else if (S_ISREG(before.st_mode) && !is_same_file(&before, &after))
        err = -ESTALE;
    *mode = before.st_mode;
    return err;
}

int conf_file_read(const char *path, char **data, size_t *len, mode_t *mode, struct conf_error *error)
{
    FILE *file = fopen(path, "re");
    int err;

    *data = NULL;
    if (file == NULL)
        return fail_of_file(path, error, -errno);
    setvbuf(file, NULL, _IONBF, 0); /* no second copy of the passwords */
    err = read_file(file, data, len, mode);
    fclose(file);
    if (err == 0)
        return 0;
    explicit_bzero(*data, *len);
    mem_free(*data);
    *data = NULL;
    return fail_of_file(path, error, err);
}
